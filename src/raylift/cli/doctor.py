"""What a bug report needs: versions, devices, threads, engines and the embedded weights."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from typing import Any

import torch

from raylift.about import __version__
from raylift.drr import plastimatch
from raylift.errors import BadInput
from raylift.model.weights import EMBEDDED, embedded_weights, load_weights

PACKAGES = ("torch", "monai", "geomloss", "lightning-fabric", "SimpleITK", "pydicom", "numba", "numpy")
OPTIONAL = ("kornia", "tensorboard", "openvino", "onnx", "onnxscript", "idc-index-data")


def examine() -> dict[str, Any]:
    """Return everything that `raylift doctor` prints, JSON-ready."""
    engine = plastimatch.program()
    return {
        "raylift": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": {name: importlib.metadata.version(name) for name in [*PACKAGES, *filter(_installed, OPTIONAL)]},
        "devices": ["cpu", *(torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count()))],
        "threads": torch.get_num_threads(),
        "engines": {"torch": "built in", "plastimatch": str(engine) if engine else "not found"},
        "weights": {name: _state(name) for name in embedded_weights()},
    }


def _state(name: str) -> str:
    try:
        return f"good, SHA-256 {load_weights(EMBEDDED / name).info.sha256[:12]}"
    except BadInput as error:
        return str(error)


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
