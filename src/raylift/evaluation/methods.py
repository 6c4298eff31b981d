"""Ways to a volume, learned or not, under one roof: each takes a prepared case and gives its cube."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raylift.data.dataset import Case, PreparedDataset
from raylift.errors import BadInput, WrongUsage
from raylift.evaluation.clinical import clinical_measures
from raylift.evaluation.scores import score
from raylift.geometry import View
from raylift.images.hounsfield import hu_to_normalised, normalised_to_hu
from raylift.images.volume import Volume
from raylift.images.xray_set import XraySet
from raylift.io.formats import readable
from raylift.io.volumes import read_volume
from raylift.reconstruction.iterative import ITERATIVE
from raylift.reconstruction.reconstructor import Reconstructor
from raylift.storage.paths import StoragePath, Unreachable, stem_of, suffix_of

CaseMethod = Callable[[PreparedDataset, Case], Volume]
MEAN = "mean"
NAMES = (MEAN, *ITERATIVE)


def stored_xrays(dataset: PreparedDataset, case: Case, views: Sequence[View]) -> XraySet:
    """The case's stored X-rays of some views. Raises BadInput if one is not stored."""
    indices = dataset.view_indices(views)
    return XraySet(case.xrays[indices], tuple(dataset.views[k] for k in indices), dataset.geometry, case.isocentre)


@dataclass(frozen=True)
class MeanVolume:
    """The mean of cubes (z, y, x), in [0, 1]; for the patient of one of them, that of the others.

    Args:
        total: of the cubes, (z, y, x).
        folder: of their cases.
        cases: their names.
        unread: names of training cases that are not among them, as they cannot be read.
    """

    total: np.ndarray
    folder: StoragePath
    cases: frozenset[str]
    unread: tuple[str, ...]

    def __call__(self, case: Case) -> np.ndarray:
        """What there is beside a case."""
        if case.name in self.cases and case.folder.parent.resolve() == self.folder:
            return (self.total - _unit(case)) / (len(self.cases) - 1)
        mean: np.ndarray = self.total / len(self.cases)
        return mean


def mean_volume(training: PreparedDataset) -> MeanVolume:
    """The mean of a dataset's training patients. Raises BadInput if there are fewer than two that can be read."""
    total, read, unread = np.zeros((training.voxels,) * 3), set[str](), list[str]()
    for name in training.names("train"):
        try:
            total += _unit(training.case(name))
            read.add(name)
        except Unreachable:
            raise
        except BadInput:
            unread.append(name)
    if len(read) < 2:
        raise BadInput(training.folder, "one training case has no mean", "prepare more scans")
    return MeanVolume(total, (training.folder / "cases").resolve(), frozenset(read), tuple(unread))


def _unit(case: Case) -> np.ndarray:
    return hu_to_normalised(case.truth.array.astype(np.float32))


def check_cubes(dataset: PreparedDataset, reconstructor: Reconstructor) -> None:
    """Raise BadInput unless the dataset's cubes are as large as those of the weights."""
    voxels = reconstructor.lifted_network.grid.shape[0]
    if dataset.voxels != voxels:
        raise BadInput(dataset.folder, f"cubes of {dataset.voxels}³ voxels, the weights are for {voxels}³",
                       f"prepare it with --voxels {voxels}")  # fmt: skip


def from_weights(reconstructor: Reconstructor) -> CaseMethod:
    """What trained weights make of a case's X-rays."""

    def method(dataset: PreparedDataset, case: Case) -> Volume:
        check_cubes(dataset, reconstructor)
        return reconstructor(stored_xrays(dataset, case, reconstructor.lifted_network.views)).volume

    return method


def not_learned(name: str, training: PreparedDataset, views: Sequence[View]) -> CaseMethod:
    """The mean of a dataset's training volumes, or an iterative reconstruction from the X-rays of some views.

    Args:
        name: one of `NAMES`.
        training: whose mean it is.
        views: of the X-rays.
    """
    if name == MEAN:
        mean = mean_volume(training)
        if mean.unread:
            raise BadInput(training.folder, f"cannot read {', '.join(mean.unread)}", "run raylift data prepare again")
        return lambda dataset, case: Volume(normalised_to_hu(mean(case).astype(np.float32)), case.truth.grid)
    reconstruct = ITERATIVE[name]
    return lambda dataset, case: reconstruct(stored_xrays(dataset, case, views), case.truth.grid)


def from_folder(folder: Path) -> CaseMethod:
    """Volumes that another program made: files with the cases' names, resampled onto the cubes."""
    files = {stem_of(path): path for path in sorted(folder.iterdir()) if suffix_of(path) in readable()}

    def method(dataset: PreparedDataset, case: Case) -> Volume:
        if case.name not in files:
            raise BadInput(folder, f"no volume of the case {case.name}", f"name it {case.name}.nii.gz")
        return read_volume(files[case.name]).resample(case.truth.grid)

    return method


def find_method(text: str, training: PreparedDataset, views: Sequence[View], device: str | None = None) -> CaseMethod:
    """A method by name or place: "mean", "cgls", "sart-tv"; weights or a run; a folder of volumes.

    Raises:
        BadInput: the place holds neither.
        WrongUsage: it is no method.
    """
    if text in NAMES:
        return not_learned(text, training, views)
    place = Path(text)
    if not place.exists():
        raise WrongUsage(f"{text}: neither a file, nor a folder, nor one of {', '.join(NAMES)}")
    if place.is_file() or (place / "weights.safetensors").exists():
        return from_weights(Reconstructor.from_pretrained(place, device))
    if not any(suffix_of(path) in readable() for path in place.iterdir()):
        raise BadInput(place, "neither weights nor volumes", "give a run, or a folder with a volume per case")
    return from_folder(place)


def score_case(volume: Volume, case: Case, protocol: str) -> dict[str, float]:
    """What a volume on the cube of a case scores under a protocol of `raylift.evaluation.protocols`."""
    made, truth = (hu_to_normalised(array.astype(np.float32)) for array in (volume.array, case.truth.array))
    return score(made, truth, protocol)


def clinical_case(volume: Volume, case: Case) -> dict[str, float]:
    """The clinical measures of a volume on the cube of a case; see `raylift.evaluation.clinical`."""
    return clinical_measures(volume.array, case.truth.array, case.truth.grid.spacing)
