"""A network as a model file for other runtimes: written as ONNX or OpenVINO IR, computed by OpenVINO.

What is exported is the network alone, which takes nearly all of the time: lifted X-rays (1, N, D, H, W), (1, N, D, W)
of the `image` lift, to a volume (1, 1, D, H, W). The lift follows the views, which may be other ones than those of
training (PA instead of AP).
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from raylift.errors import BadInput, WrongUsage

SUFFIXES = (".onnx", ".xml")
OPSET = 20
EXTERNAL = b"location"  # ONNX's word for the file that holds a tensor's values


def export(network: nn.Module, lifted: Tensor, path: Path) -> None:
    """Write a network as ONNX (`.onnx`) or as OpenVINO IR (`.xml`, and `.bin` beside it).

    Args:
        network: in evaluation mode.
        lifted: an input of the size to export for.
        path: of the model; its ending is checked by `check_ending`.

    Raises:
        WrongUsage: the packages for it are not installed.
        BadInput: the network has an operation that ONNX does not know.
    """
    _require("onnx", "onnxscript", "openvino")
    onnx = path.with_suffix(".onnx")
    silenced = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            made = torch.onnx.export(
                network, (lifted,), dynamo=True, opset_version=OPSET, input_names=["lifted"], output_names=["volume"],
                verbose=False,
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        reason = (str(error.__cause__ or error).splitlines() or [""])[0]
        raise BadInput("network", f"ONNX cannot say what it does ({reason})", "use the weights themselves") from None
    finally:
        logging.disable(silenced)
    assert made is not None
    made.save(str(onnx))
    if path.suffix == ".xml":
        import openvino

        openvino.save_model(openvino.convert_model(str(onnx)), str(path), compress_to_fp16=False)
        onnx.unlink()


def check_ending(path: Path) -> None:
    """Raise WrongUsage unless a path ends as an exported model does."""
    if path.suffix not in SUFFIXES:
        raise WrongUsage(f"{path.name}: the name of an exported model ends in {' or '.join(SUFFIXES)}")


class Exported(nn.Module):
    """An exported network, computed by OpenVINO on the CPU in float32.

    Args:
        path: of the model, ONNX or OpenVINO IR.

    Raises:
        WrongUsage: OpenVINO is not installed.
        BadInput: OpenVINO cannot read the model, or it names other files.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        _require("openvino")
        import openvino

        if path.suffix == ".onnx" and EXTERNAL in path.read_bytes():
            raise BadInput(path, "names other files for its values", "export it again, as one file")
        options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        try:
            self.compiled = openvino.Core().compile_model(str(path), "CPU", options)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise BadInput(path, f"OpenVINO cannot read it ({reason})", "export it again") from None

    def forward(self, lifted: Tensor) -> Tensor:
        """Compute; X-rays on another device come back to it. Raises WrongUsage where a gradient is wanted."""
        if torch.is_grad_enabled() and lifted.requires_grad:
            raise WrongUsage("an exported model has no gradients: give the weights that it was made from")
        made: np.ndarray = self.compiled([lifted.float().cpu().numpy()])[0]
        return torch.from_numpy(made.copy()).to(lifted.device)


def _require(*packages: str) -> None:
    for package in packages:
        try:
            __import__(package)
        except ImportError:
            raise WrongUsage(f"{package} is not installed: pip install 'raylift[export]'") from None
