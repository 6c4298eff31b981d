"""Weights in files: `weights.safetensors`, and `weights.json` beside it, which describes them."""

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

from raylift.config.earlier_names import existing_file
from raylift.errors import BadInput, WrongUsage
from raylift.lifting.scaling import XRAY_SCALE
from raylift.model.ensemble import Ensemble
from raylift.model.export import EXPORT_SUFFIXES, ExportedNetwork, check_ending, export
from raylift.model.lifted_network import LiftedNetwork
from raylift.model.weights_info import NORMALISATION, Calibration, Training, WeightsDescription, WeightsInfo
from raylift.radiographs.out_of_distribution import OODDetector
from raylift.storage.atomic import atomic_write_folder, write_json
from raylift.storage.paths import size_of
from raylift.storage.records import read_record

EMBEDDED = Path(__file__).parents[1] / "pretrained"  # holds a folder for each set of weights that comes with Raylift
DEFAULT = "chest-64"
OOD_FILE = "ood.safetensors"
MOST_WEIGHTS_BYTES = 16 * 2**30
TENSOR_DTYPES = ("F32", "F16", "BF16", "I64")
AGAIN = "copy both files again"
MAX_DIFFERENCE = 1e-3  # of the network's window: an exported model that differs by more is refused


@dataclass(frozen=True)
class Weights:
    """A trained lifted network and its description.

    Args:
        lifted_network: the lift with the trained network, in evaluation mode.
        info: the content of `weights.json`.
        path: of the safetensors file or the exported model.
        ood_detector: recognises X-rays unlike those of the training; None where none was fitted.
    """

    lifted_network: LiftedNetwork
    info: WeightsInfo
    path: Path
    ood_detector: OODDetector | None = None


def build_lifted_network(info: WeightsDescription, network: nn.Module | None = None) -> LiftedNetwork:
    """Return the lifted network that `weights.json` describes, with random weights or the given network."""
    return LiftedNetwork.from_recipe(
        info.recipe, info.geometry, info.voxels, info.cube_mm, members=info.members, network=network
    )


def save_weights(
    lifted_network: LiftedNetwork, info: WeightsDescription, folder: Path, ood_detector: OODDetector | None = None
) -> Path:
    """Write `weights.safetensors` and `weights.json` into a folder, and `ood.safetensors` if a detector is given.

    Raises BadInput, through `check_finite_weights`, where a weight is NaN or infinite; nothing is written then.

    Args:
        lifted_network: its inner network is written.
        info: the content of `weights.json` but for checksums.
        folder: where to write the files.
        ood_detector: recognises X-rays unlike those of the training.

    Returns:
        The path of the safetensors file.
    """
    path, network = folder / "weights.safetensors", lifted_network.network
    check_finite_weights(network, path)
    with atomic_write_folder(folder) as temporary:
        save_model(network, str(temporary / path.name))  # a tensor that the network holds twice is written once
        checksums = {"sha256": _digest(temporary / path.name)}
        if ood_detector is not None:
            ood_detector.save(temporary / OOD_FILE)
            checksums["ood_sha256"] = _digest(temporary / OOD_FILE)
        write_json(info.to_dict() | checksums, temporary / "weights.json")
    return path


def combine_weights(members: Sequence[Weights], folder: Path) -> Path:
    """Write the weights of an ensemble (`raylift.model.ensemble`), in half precision, into a folder.

    The OOD detector is that of the first member. The uncertainty has to be calibrated anew.

    Args:
        members: at least two, trained alike except for the patients and the random numbers.
        folder: where to write `weights.safetensors` and the files that belong to it.

    Returns:
        The path of the safetensors file.

    Raises:
        BadInput: the members differ in more than that, or are ensembles or exported already.
        WrongUsage: there are fewer than two members, or the folder already holds weights or a run.
    """
    if len(members) < 2:
        raise WrongUsage("an ensemble has at least two members: give several weights")
    if (folder / "weights.safetensors").exists() or (folder / "recipe.yaml").exists():
        raise WrongUsage(f"{folder} already holds weights or a run: name another folder")
    first = members[0]
    for member in members:
        if isinstance(member.lifted_network.network, (ExportedNetwork, Ensemble)):
            raise BadInput(member.path, "is already exported or an ensemble", "give the weights of single trainings")
        if _task(member) != _task(first):
            raise BadInput(
                member.path, f"was trained for another task than {first.path}", "give weights of the same recipe"
            )
    trainings = [
        member.info.training.model_copy(update={"sha256": member.info.sha256, "members": []}) for member in members
    ]
    cases = sorted(set[str]().union(*(training.seen_cases for training in trainings)))
    recipe, geometry, voxels, cube_mm = first.info.recipe, first.info.geometry, first.info.voxels, first.info.cube_mm
    training = Training(cases=cases, members=trainings)
    info = WeightsDescription.of(recipe, geometry, voxels, cube_mm, training, len(members))
    networks = [deepcopy(member.lifted_network.network) for member in members]
    folder.mkdir(parents=True, exist_ok=True)
    return save_weights(build_lifted_network(info, Ensemble(networks).half()), info, folder, first.ood_detector)


def _task(weights: Weights) -> dict[str, Any]:
    """Return what decides which network is trained, and on which X-rays and volumes."""
    recipe, data = weights.info.recipe, weights.info.recipe.data
    return {
        **weights.info.model_dump(include={"geometry", "voxels", "cube_mm", "normalisation"}),
        "views": recipe.view_list,
        **recipe.model_dump(include={"lift", "aggregation"}),
        "network": recipe.network.model_dump(exclude={"checkpointing"}),
        "takes": (data.pairs, data.opposite_views, data.any_views > 0, data.any_geometry > 0),
    }


def export_weights(weights: Weights, path: Path) -> float:
    """Write the network as ONNX (`.onnx`) or OpenVINO IR (`.xml` and `.bin`), and its description (name plus `.json`).

    `load_weights`, `Reconstructor` and the commands take the exported model like other weights; OpenVINO computes it.

    Args:
        weights: to be exported.
        path: of the model file.

    Returns:
        The largest difference between the outputs of the network and of the exported model for random X-rays, in the
        network's window [0, 1]; at most `MAX_DIFFERENCE`.

    Raises:
        WrongUsage: the packages for it are not installed, the path has another ending, or the weights are already
            exported.
        BadInput: the network cannot be exported, or the exported model computes something else; nothing is written.
    """
    check_ending(path)
    lifted_network = weights.lifted_network
    network, pixels = lifted_network.network, lifted_network.geometry.pixels
    if isinstance(network, ExportedNetwork):
        raise WrongUsage(f"{weights.path} is already exported: give the weights that it was exported from")
    generator = torch.Generator().manual_seed(0)
    xrays = torch.rand(1, len(lifted_network.views), pixels, pixels, generator=generator) * XRAY_SCALE
    with torch.no_grad(), atomic_write_folder(path.parent) as folder:
        lifted = lifted_network.inputs(xrays)
        try:
            export(network, lifted, folder / path.name)
            output = ExportedNetwork(folder / path.name)(lifted)
        except RuntimeError as error:
            reason = (str(error).strip().splitlines() or [""])[-1]
            raise BadInput(path, f"OpenVINO cannot compute it ({reason})", "use the weights themselves") from None
        difference = float((output - network(lifted)).abs().max())
        if not difference <= MAX_DIFFERENCE:
            raise BadInput(path, f"differs from the network by {difference:.2g}", "use the weights themselves")
        checksums = {"sha256": _digest(folder / path.name), "exported_from": weights.info.sha256}
        write_json(weights.info.to_dict() | checksums, folder / _sidecar(path).name)
    return difference


def store_calibration(weights: Weights, calibration: Calibration) -> None:
    """Write the result of `raylift.evaluation.calibration.calibrate` into the weights' description."""
    write_json(weights.info.model_copy(update={"uncertainty": calibration}).to_dict(), _sidecar(weights.path))


def _sidecar(path: Path) -> Path:
    """Return the path of the description of weights; exported models keep their ending in its name."""
    return path.with_name(f"{path.name}.json") if path.suffix in EXPORT_SUFFIXES else path.with_suffix(".json")


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal; for OpenVINO IR (`.xml`), of both of its files."""
    digest = hashlib.sha256()
    for part in (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,):
        with part.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def embedded_weights() -> list[str]:
    """Return the names of the weights that come with Raylift."""
    return sorted(folder.name for folder in EMBEDDED.iterdir() if folder.is_dir())


def find_weights(source: str | Path | None) -> Path:
    """Return the path of weights, given a file, a folder, a run or the name of embedded weights; `DEFAULT` for None.

    Raises:
        BadInput: there are none.
    """
    path = EMBEDDED / DEFAULT if source is None else Path(source)
    if not path.exists() and str(source) in embedded_weights():
        path = EMBEDDED / str(source)
    if path.is_dir():
        path = path / "weights.safetensors"
    if not path.is_file():
        names = ", ".join(embedded_weights())
        raise BadInput(path, "no weights", f"give weights.safetensors, the folder that holds it, or one of {names}")
    return path


def load_weights(source: str | Path | None = None) -> Weights:
    """Load weights and check them.

    Args:
        source: a weights.safetensors file, or a folder (a run, say) that holds one, or an exported model, or the name
            of embedded weights; None for the default ones.

    Returns:
        The weights, in evaluation mode on the CPU.

    Raises:
        BadInput: the weights are missing or damaged, or do not fit their `weights.json`.
        WrongUsage: they are an exported model, and OpenVINO is not installed.
    """
    path = find_weights(source)
    sidecar = _sidecar(path)
    try:
        info = read_record(sidecar, WeightsInfo)
    except (OSError, ValueError) as error:
        problem = f"its description, {sidecar.name}, cannot be used ({_first_line(error)})"
        raise BadInput(path, problem, f"copy {path.name} and {sidecar.name} again") from None
    try:
        _check_file(path, info)
        exported = path.suffix in EXPORT_SUFFIXES
        if not exported:
            _check_tensors(path, info)
        lifted_network = build_lifted_network(info, ExportedNetwork(path) if exported else None)
        if not exported:
            _load(lifted_network.network, path)
    except (BadInput, WrongUsage):
        raise
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = _first_line(error)
        raise BadInput(path, f"damaged weights ({reason})", f"copy {path.name} and {sidecar.name} again") from None
    return Weights(lifted_network.eval().requires_grad_(False), info, path, _ood_detector(path, info))


def _check_file(path: Path, info: WeightsInfo) -> None:
    """Check a weights file against its description.

    Raises:
        BadInput: it is too large, has another checksum, or was written with another normalisation.
    """
    size = size_of(path)
    if size > MOST_WEIGHTS_BYTES:
        problem = f"{size / 2**30:.0f} GB; at most {MOST_WEIGHTS_BYTES / 2**30:.0f} GB are read"
        raise BadInput(path, problem, "give a file of weights")
    if _digest(path) != info.sha256:
        raise BadInput(path, f"its checksum is not the one in {_sidecar(path).name}", AGAIN)
    theirs, ours = info.normalisation, NORMALISATION
    if (theirs.window_hu, theirs.xray_scale) != (ours.window_hu, ours.xray_scale):
        raise BadInput(path, "trained with another normalisation", f"use raylift {info.raylift}")


def _load(network: nn.Module, path: Path) -> None:
    """Load the weights of a network from a safetensors file.

    Raises:
        BadInput: a value is NaN or infinite, or an index table differs from the network's.
    """
    indices = {name: tensor.clone() for name, tensor in network.state_dict().items() if not tensor.is_floating_point()}
    load_model(network, path)
    check_finite_weights(network, path)
    loaded = network.state_dict()
    for name, tensor in indices.items():
        if not torch.equal(loaded[name], tensor):
            raise BadInput(path, f"has other indices than the network (in {name})", AGAIN)


def check_finite_weights(network: nn.Module, path: Path) -> None:
    """Check that all weights of a network are finite.

    Raises:
        BadInput: one is not; its message names the file at `path`.
    """
    for name, tensor in network.state_dict().items():
        if not tensor.isfinite().all():
            raise BadInput(
                path, f"holds weights that are NaN or infinite (in {name})", "use weights of another training"
            )


def _check_tensors(path: Path, info: WeightsInfo) -> None:
    """Check names, shapes and types of the tensors in a file against the description, before memory is allocated.

    Raises:
        BadInput: they are not those of the network that is described.
    """
    with safe_open(path, "pt") as file:
        shapes = {}
        for name in file.keys():  # noqa: SIM118 - no mapping
            part = file.get_slice(name)
            if part.get_dtype() not in TENSOR_DTYPES:
                raise BadInput(
                    path, f"holds numbers of type {part.get_dtype()}", f"save weights as {', '.join(TENSOR_DTYPES)}"
                )
            shapes[name] = tuple(part.get_shape())
    try:
        with torch.device("meta"):
            described = build_lifted_network(info).network.state_dict()
        expected = {name: tuple(tensor.shape) for name, tensor in described.items()}
    except (RuntimeError, NotImplementedError):  # a plugin's network whose construction needs values
        return
    # A tensor that the network holds twice is written once.
    differing = [name for name, shape in shapes.items() if expected.get(name) != shape]
    stored = set(shapes.values())
    differing += [name for name, shape in expected.items() if name not in shapes and shape not in stored]
    if differing:
        raise BadInput(path, f"holds other tensors than {_sidecar(path).name} describes ({differing[0]})", AGAIN)


def _first_line(error: Exception) -> str:
    """Return the first line of an error's message, or else its type, cut to 300 letters."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _ood_detector(path: Path, info: WeightsInfo) -> OODDetector | None:
    """Return the OOD detector stored beside weights; None if they have none or are an exported model.

    Raises:
        BadInput: its file is missing, or is not the one that the weights describe.
    """
    expected, beside = info.ood_sha256, existing_file(path.with_name(OOD_FILE))
    if expected is None or path.suffix in EXPORT_SUFFIXES:
        return None
    if not beside.exists() or _digest(beside) != expected:
        raise BadInput(beside, f"missing, or not the one of {path.name}", "copy it again")
    return OODDetector.load(beside)
