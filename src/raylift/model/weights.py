"""Weights that explain themselves: `weights.safetensors` with `weights.json` beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model
from torch import nn

from raylift.about import __version__
from raylift.config.earlier_names import existing_file
from raylift.config.recipe import Recipe
from raylift.errors import BadInput, WrongUsage
from raylift.geometry import Geometry
from raylift.images.hounsfield import WATER_MU, WINDOW
from raylift.lifting.scaling import XRAY_SCALE
from raylift.model.ensemble import Ensemble
from raylift.model.export import SUFFIXES, Exported, check_ending, export
from raylift.model.lifted_network import LiftedNetwork
from raylift.model.weights_info import WeightsInfo
from raylift.radiographs.out_of_distribution import OODDetector
from raylift.storage.atomic import atomic_write_folder, write_json
from raylift.storage.paths import size_of
from raylift.storage.records import read_record

EMBEDDED = Path(__file__).parents[1] / "pretrained"  # a folder for each set of weights that comes with Raylift
DEFAULT = "chest-64"
OOD_FILE = "ood.safetensors"
MOST_BYTES = 16 * 2**30
DTYPES = ("F32", "F16", "BF16", "I64")
AGAIN = "copy both files again"
DIFFERENT = 1e-3  # of the network's window: an exported model that differs by more is none


@dataclass(frozen=True)
class Weights:
    """A trained map and what it was trained for.

    Args:
        mapping: in evaluation mode.
        info: the content of `weights.json`.
        path: of the safetensors file or the exported model.
        ood_detector: what X-rays of the training look like, where that was learned.
    """

    mapping: LiftedNetwork
    info: dict[str, Any]
    path: Path
    ood_detector: OODDetector | None = None


def build_mapping(info: dict[str, Any], network: nn.Module | None = None) -> LiftedNetwork:
    """The map that `weights.json` describes, with random weights or the given network."""
    recipe, geometry = Recipe.model_validate(info["recipe"]), Geometry.from_dict(info["geometry"])
    members = info.get("members", 1)
    return LiftedNetwork.from_recipe(
        recipe, geometry, info["voxels"], info["cube_mm"], members=members, network=network
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


def identity(info: dict[str, Any]) -> list[Any]:
    """What of weights a reconstruction depends on, by `weights.json`."""
    return [info["sha256"], info.get("ood_sha256"), info.get("uncertainty")]


def save_weights(
    mapping: LiftedNetwork, info: dict[str, Any], folder: Path, ood_detector: OODDetector | None = None
) -> Path:
    """Write `weights.safetensors` and `weights.json` into a folder, and `ood.safetensors` if it is given.

    Returns:
        The safetensors file.

    Raises:
        BadInput: a weight is NaN or infinite; nothing is written.
    """
    path = folder / "weights.safetensors"
    check_finite(mapping.network, path)
    with atomic_write_folder(folder) as temporary:
        save_model(mapping.network, str(temporary / path.name))  # a tensor that the network holds twice is written once
        info = {**info, "sha256": _digest(temporary / path.name)}
        if ood_detector is not None:
            ood_detector.save(temporary / OOD_FILE)
            info["ood_sha256"] = _digest(temporary / OOD_FILE)
        write_json(info, temporary / "weights.json")
    return path


def combine_weights(several: Sequence[Weights], folder: Path) -> Path:
    """Write weights whose networks answer together (`networks.ensemble`), in half precision, into a folder.

    What X-rays of the training look like is taken from the first. Uncertainty is to be calibrated anew.

    Args:
        several: at least two, trained alike but for the patients and what is drawn at random.
        folder: for `weights.safetensors` and what stands beside it.

    Returns:
        The safetensors file.

    Raises:
        BadInput: they differ in more than that, or are ensembles or exported already.
        WrongUsage: there are not two, or the folder holds weights or a run already.
    """
    if len(several) < 2:
        raise WrongUsage("an ensemble has at least two members: give several weights")
    if (folder / "weights.safetensors").exists() or (folder / "recipe.yaml").exists():
        raise WrongUsage(f"{folder} holds weights or a run already: name another folder")
    first, same = several[0], ("geometry", "voxels", "cube_mm", "normalisation")
    for one in several:
        if isinstance(one.mapping.network, (Exported, Ensemble)):
            raise BadInput(one.path, "is exported or an ensemble already", "give the weights of single trainings")
        if [one.info[key] for key in same] != [first.info[key] for key in same] or _kind(one) != _kind(first):
            raise BadInput(one.path, f"trained for something else than {first.path}", "give weights of one recipe")
    info = {key: value for key, value in first.info.items() if key not in ("uncertainty", "sha256", "ood_sha256")}
    info["members"] = len(several)
    info["training"] = {
        "cases": sorted(set[str]().union(*(seen_cases(one.info) for one in several))),
        "members": [{"sha256": one.info["sha256"], **one.info["training"]} for one in several],
    }
    mapping = build_mapping(info, Ensemble([deepcopy(one.mapping.network) for one in several]).half())
    folder.mkdir(parents=True, exist_ok=True)
    return save_weights(mapping, info, folder, first.ood_detector)


def _kind(weights: Weights) -> dict[str, Any]:
    """What of a recipe decides which network it trains, and which X-rays that takes."""
    try:
        recipe = Recipe.model_validate(weights.info["recipe"])
    except ValueError:
        raise BadInput(weights.path, "its recipe is not one of this version", "train it anew") from None
    data = recipe.data
    return {
        "views": recipe.view_list,
        **recipe.model_dump(include={"lift", "aggregation"}),
        "network": recipe.network.model_dump(exclude={"checkpointing"}),
        "takes": (data.pairs, data.opposite_views, data.any_views > 0, data.any_geometry > 0),
    }


def export_weights(weights: Weights, path: Path) -> float:
    """Write the network as ONNX (`.onnx`) or OpenVINO IR (`.xml` and `.bin`), and a description, the name and `.json`.

    What comes out is weights to `load_weights` again, for `Reconstructor` and the commands; OpenVINO computes them.

    Returns:
        The largest difference of what the network and the exported one make of some random X-rays, in the network's
        window [0, 1]; at most `DIFFERENT`.

    Raises:
        WrongUsage: the packages for it are not installed, the path ends otherwise, or the weights are exported already.
        BadInput: the network cannot be exported, or computes something else then; nothing is written.
    """
    check_ending(path)
    if isinstance(weights.mapping.network, Exported):
        raise WrongUsage(f"{weights.path} is exported already: give the weights that it was made from")
    mapping, pixels = weights.mapping, weights.mapping.geometry.pixels
    generator = torch.Generator().manual_seed(0)
    xrays = torch.rand(1, len(mapping.views), pixels, pixels, generator=generator) * XRAY_SCALE
    with torch.no_grad(), atomic_write_folder(path.parent) as folder:
        lifted = mapping.inputs(xrays)
        try:
            export(mapping.network, lifted, folder / path.name)
            made = Exported(folder / path.name)(lifted)
        except RuntimeError as error:
            reason = (str(error).strip().splitlines() or [""])[-1]
            raise BadInput(path, f"OpenVINO cannot compute it ({reason})", "use the weights themselves") from None
        difference = float((made - mapping.network(lifted)).abs().max())
        if not difference <= DIFFERENT:
            raise BadInput(path, f"computes something else, by {difference:.2g}", "use the weights themselves")
        info = {**weights.info, "sha256": _digest(folder / path.name), "exported_from": weights.info["sha256"]}
        write_json(info, folder / _sidecar(path).name)
    return difference


def seen_cases(info: dict[str, Any]) -> set[str]:
    """Names of the cases that weights have learned from, they or those that they began with."""
    training = info["training"]
    return {*training["cases"], *training.get("init_from", {}).get("cases", ())}


def store_calibration(weights: Weights, calibration: dict[str, Any]) -> None:
    """Write what `evaluation.uncertainty.calibrate` found into the weights' description."""
    write_json({**weights.info, "uncertainty": calibration}, _sidecar(weights.path))


def _sidecar(path: Path) -> Path:
    """Where weights are described. Exported models of one name, and the weights that they are of, have their own."""
    return path.with_name(f"{path.name}.json") if path.suffix in SUFFIXES else path.with_suffix(".json")


def _digest(path: Path) -> str:
    """SHA-256 of weights, hexadecimal; OpenVINO IR has a second file."""
    digest = hashlib.sha256()
    for part in (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,):
        with part.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def embedded_weights() -> list[str]:
    """Names of the weights that come with Raylift."""
    return sorted(folder.name for folder in EMBEDDED.iterdir() if folder.is_dir())


def find_weights(place: str | Path | None) -> Path:
    """The weights file for a file, a folder, a run or an embedded one's name; `DEFAULT` for None. Raises BadInput."""
    path = EMBEDDED / DEFAULT if place is None else Path(place)
    if not path.exists() and str(place) in embedded_weights():
        path = EMBEDDED / str(place)
    if path.is_dir():
        path = path / "weights.safetensors"
    if not path.is_file():
        names = ", ".join(embedded_weights())
        raise BadInput(path, "no weights", f"give weights.safetensors, the folder that holds it, or one of {names}")
    return path


def load_weights(place: str | Path | None = None) -> Weights:
    """Load weights and check them.

    Args:
        place: a weights.safetensors file, or a folder (a run, say) that holds one, or an exported model, or the name
            of embedded weights; None for the default ones.

    Raises:
        BadInput: missing, damaged, or not what their `weights.json` says.
        WrongUsage: an exported model, and OpenVINO is not installed.
    """
    path = find_weights(place)
    sidecar = _sidecar(path)
    try:
        typed = read_record(sidecar, WeightsInfo)
    except (OSError, ValueError) as error:
        problem = f"its description, {sidecar.name}, cannot be used ({_first_line(error)})"
        raise BadInput(path, problem, f"copy {path.name} and {sidecar.name} again") from None
    try:
        size = size_of(path)
        if size > MOST_BYTES:
            raise BadInput(
                path, f"{size / 2**30:.0f} GB, where at most {MOST_BYTES / 2**30:.0f} are read", "give weights"
            )
        if _digest(path) != typed.sha256:
            raise BadInput(path, f"its checksum is not the one in {sidecar.name}", "copy both files again")
        normalisation = typed.normalisation
        if (normalisation.window_hu, normalisation.xray_scale) != (list(WINDOW), XRAY_SCALE):
            raise BadInput(path, "made with another normalisation", f"use raylift {typed.raylift}")
        info = typed.model_dump(mode="json", exclude_unset=True) | {"recipe": typed.recipe.model_dump(mode="json")}
        exported = path.suffix in SUFFIXES
        if not exported:
            _check_tensors(path, info)
        mapping = build_mapping(info, Exported(path) if exported else None)
        if not exported:
            _load(mapping.network, path)
    except (BadInput, WrongUsage):
        raise
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = _first_line(error)
        raise BadInput(path, f"damaged weights ({reason})", f"copy {path.name} and {sidecar.name} again") from None
    return Weights(mapping.eval().requires_grad_(False), info, path, _ood_detector(path, info))


def _load(network: nn.Module, path: Path) -> None:
    """Fill a network. Raises BadInput for values that are NaN or infinite, and for indices that it does not have."""
    indices = {name: tensor.clone() for name, tensor in network.state_dict().items() if not tensor.is_floating_point()}
    load_model(network, path)
    check_finite(network, path)
    found = network.state_dict()
    for name, tensor in indices.items():
        if not torch.equal(found[name], tensor):
            raise BadInput(path, f"other indices than the network has (in {name})", AGAIN)


def check_finite(network: nn.Module, path: Path) -> None:
    """Raise BadInput where a network holds NaN or infinite values."""
    for name, tensor in network.state_dict().items():
        if not tensor.isfinite().all():
            raise BadInput(path, f"weights that are NaN or infinite (in {name})", "use weights of another training")


def _check_tensors(path: Path, info: dict[str, Any]) -> None:
    """Raise BadInput where weights hold other tensors than the network that is described; before memory is taken."""
    with safe_open(path, "pt") as file:
        shapes = {}
        for name in file.keys():  # noqa: SIM118 - no mapping
            part = file.get_slice(name)
            if part.get_dtype() not in DTYPES:
                raise BadInput(path, f"numbers of type {part.get_dtype()}", f"weights are {', '.join(DTYPES)}")
            shapes[name] = tuple(part.get_shape())
    try:
        with torch.device("meta"):
            wanted = {name: tuple(t.shape) for name, t in build_mapping(info).network.state_dict().items()}
    except (RuntimeError, NotImplementedError):  # a network of others that needs values to be built
        return
    # A tensor that the network holds twice is written once.
    differing = [name for name, shape in shapes.items() if wanted.get(name) != shape]
    named = {shapes[name] for name in shapes}
    differing += [name for name, shape in wanted.items() if name not in shapes and shape not in named]
    if differing:
        raise BadInput(path, f"holds other tensors than {_sidecar(path).name} describes ({differing[0]})", AGAIN)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _ood_detector(path: Path, info: dict[str, Any]) -> OODDetector | None:
    """What stands beside the weights; nothing if they say so, or are an exported model. Raises BadInput."""
    expected, beside = info.get("ood_sha256"), existing_file(path.with_name(OOD_FILE))
    if expected is None or path.suffix in SUFFIXES:
        return None
    if not beside.exists() or _digest(beside) != expected:
        raise BadInput(beside, f"missing, or not the one of {path.name}", "copy it again")
    return OODDetector.load(beside)
