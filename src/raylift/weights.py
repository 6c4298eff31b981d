"""Weights that explain themselves: `weights.safetensors` with `weights.json` beside it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model

from raylift._version import __version__
from raylift.errors import BadInput, WrongUsage
from raylift.geometry import Geometry, View
from raylift.networks.mapping import XRAY_SCALE, Mapping
from raylift.volumes import WATER_MU, WINDOW, replacing, write_json

EMBEDDED = Path(__file__).parent / "pretrained"


@dataclass(frozen=True)
class Weights:
    """A trained map and what it was trained for.

    Args:
        mapping: in evaluation mode.
        info: the content of `weights.json`.
        path: of the safetensors file.
    """

    mapping: Mapping
    info: dict[str, Any]
    path: Path


def build_mapping(info: dict[str, Any]) -> Mapping:
    """The map that `weights.json` describes, with random weights."""
    recipe = info["recipe"]
    network = recipe["network"]
    return Mapping(
        network=network["name"],
        feature_size=network["feature_size"],
        window_size=network["window_size"],
        lift=recipe["lift"],
        geometry=Geometry.from_dict(info["geometry"]),
        views=[View.parse(view) for view in recipe["views"]],
        voxels=info["voxels"],
        cube_mm=info["cube_mm"],
    )


def describe(
    recipe: dict[str, Any], geometry: Geometry, voxels: int, cube_mm: float, training: dict[str, Any]
) -> dict[str, Any]:
    """What `weights.json` says; `save_weights` adds the checksum."""
    return {
        "format": 1,
        "raylift": __version__,
        "purpose": "research only; not a medical device",
        "recipe": recipe,
        "geometry": geometry.to_dict(),
        "voxels": voxels,
        "cube_mm": cube_mm,
        "normalisation": {"window_hu": list(WINDOW), "water_mu_per_mm": WATER_MU, "xray_scale": XRAY_SCALE},
        "training": training,
    }


def save_weights(mapping: Mapping, info: dict[str, Any], folder: Path) -> Path:
    """Write `weights.safetensors` and `weights.json` into a folder.

    Returns:
        The safetensors file.
    """
    path = folder / "weights.safetensors"
    with replacing(path) as temporary:
        save_model(mapping.network, str(temporary))  # a tensor that the network holds twice is written once
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    write_json({**info, "sha256": digest}, folder / "weights.json")
    return path


def find_weights(place: str | Path | None) -> Path:
    """The weights file for a file, a folder or a run; the embedded one for None. Raises BadInput."""
    path = Path(place) if place is not None else EMBEDDED
    if path.is_dir():
        path = path / "weights.safetensors"
    if not path.exists():
        raise BadInput(path, "no weights", "give weights.safetensors or the folder that holds it")
    return path


def load_weights(place: str | Path | None = None) -> Weights:
    """Load weights and check them.

    Args:
        place: a weights.safetensors file, or a folder (a run, say) that holds one; None for the embedded weights.

    Raises:
        BadInput: missing, damaged, or not what their `weights.json` says.
    """
    path = find_weights(place)
    sidecar = path.with_suffix(".json")
    try:
        info = json.loads(sidecar.read_text())
        if hashlib.sha256(path.read_bytes()).hexdigest() != info["sha256"]:
            raise BadInput(path, "its checksum is not the one in weights.json", "copy both files again")
        normalisation = info["normalisation"]
        if (normalisation["window_hu"], normalisation["xray_scale"]) != (list(WINDOW), XRAY_SCALE):
            raise BadInput(path, "made with another normalisation", f"use raylift {info['raylift']}")
        mapping = build_mapping(info)
        load_model(mapping.network, path)
    except BadInput:
        raise
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(path, f"damaged weights ({reason})", "copy weights.safetensors and weights.json again") from None
    return Weights(mapping.eval().requires_grad_(False), info, path)


def device_of(name: torch.device | str | None = None) -> torch.device:
    """The named device; the first GPU, or else the CPU, by default. Raises WrongUsage if it does not compute here."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:  # as PyTorch answers to a device that is not there
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WrongUsage(f"device '{name}': PyTorch cannot use it here ({reason})") from None
    return device
