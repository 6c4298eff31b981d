"""Export of a network to a model file for other runtimes: ONNX or OpenVINO IR, computed by OpenVINO.

Only the network is exported, which takes nearly all of the time: it maps lifted X-rays (1, N, D, H, W), or (1, N, D, W)
with the `image` lift, to a volume (1, 1, D, H, W). The lift is not exported, since it depends on the views, which may
differ from those of the training (PA instead of AP).
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

EXPORT_SUFFIXES = (".onnx", ".xml")
OPSET = 20
EXTERNAL = b"location"  # ONNX's key for the file that holds a tensor's values


def export(network: nn.Module, lifted: Tensor, path: Path) -> None:
    """Write a network as ONNX (`.onnx`) or as OpenVINO IR (`.xml`, and `.bin` beside it).

    Raises WrongUsage, through `_require`, where the packages for it are not installed.

    Args:
        network: in evaluation mode.
        lifted: an input of the size for which to export.
        path: of the model file; `check_ending` checks its ending.

    Raises:
        BadInput: the network has an operation that ONNX does not have.
    """
    _require("onnx", "onnxscript", "openvino")
    onnx = path.with_suffix(".onnx")
    silenced = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network, (lifted,), dynamo=True, opset_version=OPSET, input_names=["lifted"], output_names=["volume"],
                verbose=False,
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        reason = (str(error.__cause__ or error).splitlines() or [""])[0]
        raise BadInput("network", f"cannot be expressed in ONNX ({reason})", "use the weights themselves") from None
    finally:
        logging.disable(silenced)
    assert program is not None
    program.save(str(onnx))
    if path.suffix == ".xml":
        import openvino

        openvino.save_model(openvino.convert_model(str(onnx)), str(path), compress_to_fp16=False)
        onnx.unlink()


def check_ending(path: Path) -> None:
    """Check that a path ends as an exported model does.

    Raises:
        WrongUsage: it does not.
    """
    if path.suffix not in EXPORT_SUFFIXES:
        raise WrongUsage(f"{path.name}: the name of an exported model ends in {' or '.join(EXPORT_SUFFIXES)}")


class ExportedNetwork(nn.Module):
    """An exported network, computed by OpenVINO on the CPU in float32.

    Args:
        path: of the model file, ONNX or OpenVINO IR.

    Raises:
        WrongUsage: OpenVINO is not installed.
        BadInput: OpenVINO cannot read the model, or its values are in other files.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        _require("openvino")
        import openvino

        if path.suffix == ".onnx" and EXTERNAL in path.read_bytes():
            raise BadInput(path, "keeps its values in other files", "export it again, as one file")
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
        """Return the network's output for lifted X-rays.

        Args:
            lifted: (1, N, D, H, W), or (1, N, D, W) with the `image` lift, on any device.

        Returns:
            The volume (1, 1, D, H, W), float32, on the device of the input.

        Raises:
            WrongUsage: the input requires a gradient.
        """
        if torch.is_grad_enabled() and lifted.requires_grad:
            raise WrongUsage("an exported model has no gradients: use the weights that it was exported from")
        output: np.ndarray = self.compiled([lifted.float().cpu().numpy()])[0]
        return torch.from_numpy(output.copy()).to(lifted.device)


def _require(*packages: str) -> None:
    """Check that packages are installed.

    Raises:
        WrongUsage: one is not.
    """
    for package in packages:
        try:
            __import__(package)
        except ImportError:
            raise WrongUsage(f"{package} is not installed: pip install 'raylift[export]'") from None
