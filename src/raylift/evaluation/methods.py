"""Methods of reconstruction, learned or not, with one interface: each computes the cube of a prepared case."""

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
    """Return a case's stored X-rays of some views.

    Raises BadInput, through `PreparedDataset.view_indices`, where a view is not stored.
    """
    indices = dataset.view_indices(views)
    return XraySet(case.xrays[indices], tuple(dataset.views[k] for k in indices), dataset.geometry, case.isocentre)


@dataclass(frozen=True)
class MeanVolume:
    """The mean of training cubes, in [0, 1]; for a patient of the training, the mean of the others.

    Args:
        total: sum of the cubes, (z, y, x).
        folder: of the training cases.
        cases: names of the training cases.
        unread: names of training cases that are left out, since they cannot be read.
    """

    total: np.ndarray
    folder: StoragePath
    cases: frozenset[str]
    unread: tuple[str, ...]

    def __call__(self, case: Case) -> np.ndarray:
        """Return the mean cube (z, y, x) of all training cases but the given one."""
        if case.name in self.cases and case.folder.parent.resolve() == self.folder:
            others: np.ndarray = (self.total - _normalised_truth(case)) / (len(self.cases) - 1)
            return others
        mean: np.ndarray = self.total / len(self.cases)
        return mean


def mean_volume(training: PreparedDataset) -> MeanVolume:
    """Return the mean volume of a dataset's training cases.

    Raises:
        BadInput: fewer than two of them can be read.
        Unreachable: the dataset is in a store that does not answer.
    """
    total, read, unread = np.zeros((training.voxels,) * 3), set[str](), list[str]()
    for name in training.names("train"):
        try:
            total += _normalised_truth(training.case(name))
            read.add(name)
        except Unreachable:
            raise
        except BadInput:
            unread.append(name)
    if len(read) < 2:
        raise BadInput(training.folder, "a mean volume needs two training cases", "prepare more scans")
    return MeanVolume(total, (training.folder / "cases").resolve(), frozenset(read), tuple(unread))


def _normalised_truth(case: Case) -> np.ndarray:
    """Return the true cube (z, y, x) of a case, in [0, 1]."""
    return hu_to_normalised(case.truth.array.astype(np.float32))


def check_cubes(dataset: PreparedDataset, reconstructor: Reconstructor) -> None:
    """Check that a dataset's cubes are as large as those of the weights.

    Raises:
        BadInput: they are not.
    """
    voxels = reconstructor.lifted_network.grid.shape[0]
    if dataset.voxels != voxels:
        raise BadInput(dataset.folder, f"cubes of {dataset.voxels}³ voxels, the weights are for {voxels}³",
                       f"prepare it with --voxels {voxels}")  # fmt: skip


def from_weights(reconstructor: Reconstructor) -> CaseMethod:
    """Return the method that reconstructs with trained weights, from a case's stored X-rays of their views."""

    def method(dataset: PreparedDataset, case: Case) -> Volume:
        check_cubes(dataset, reconstructor)
        return reconstructor(stored_xrays(dataset, case, reconstructor.lifted_network.views)).volume

    return method


def not_learned(name: str, training: PreparedDataset, views: Sequence[View]) -> CaseMethod:
    """Return a method without learning: the mean training volume, or an iterative reconstruction.

    Args:
        name: one of `NAMES`.
        training: dataset of the mean volume.
        views: of the X-rays that the iterative methods take.

    Raises:
        BadInput: the mean volume cannot be computed, since training cases cannot be read.
    """
    if name == MEAN:
        mean = mean_volume(training)
        if mean.unread:
            raise BadInput(training.folder, f"cannot read {', '.join(mean.unread)}", "run raylift data prepare again")
        return lambda dataset, case: Volume(normalised_to_hu(mean(case).astype(np.float32)), case.truth.grid)
    reconstruct = ITERATIVE[name]
    return lambda dataset, case: reconstruct(stored_xrays(dataset, case, views), case.truth.grid)


def from_folder(folder: Path) -> CaseMethod:
    """Return the method that reads volumes of another program: files named like the cases, resampled onto the cubes."""
    files = {stem_of(path): path for path in sorted(folder.iterdir()) if suffix_of(path) in readable()}

    def method(dataset: PreparedDataset, case: Case) -> Volume:
        if case.name not in files:
            raise BadInput(folder, f"no volume of the case {case.name}", f"name it {case.name}.nii.gz")
        return read_volume(files[case.name]).resample(case.truth.grid)

    return method


def find_method(
    name_or_path: str, training: PreparedDataset, views: Sequence[View], device: str | None = None
) -> CaseMethod:
    """Return a method by its name ("mean", "cgls", "sart-tv"), or by the path of weights, a run or a folder of volumes.

    Args:
        name_or_path: of the method.
        training: dataset of the mean volume.
        views: of the X-rays that the iterative methods take.
        device: on which weights compute.

    Raises:
        BadInput: the folder holds neither weights nor volumes.
        WrongUsage: there is no such name or path.
    """
    if name_or_path in NAMES:
        return not_learned(name_or_path, training, views)
    path = Path(name_or_path)
    if not path.exists():
        raise WrongUsage(f"{name_or_path}: neither a file, nor a folder, nor one of {', '.join(NAMES)}")
    if path.is_file() or (path / "weights.safetensors").exists():
        return from_weights(Reconstructor.from_pretrained(path, device))
    if not any(suffix_of(file) in readable() for file in path.iterdir()):
        raise BadInput(path, "neither weights nor volumes", "give a run, or a folder with a volume per case")
    return from_folder(path)


def score_case(volume: Volume, case: Case, protocol: str) -> dict[str, float]:
    """Return the scores of a volume on the cube of a case, by a protocol of `raylift.evaluation.protocols`."""
    prediction, truth = (hu_to_normalised(array.astype(np.float32)) for array in (volume.array, case.truth.array))
    return score(prediction, truth, protocol)


def clinical_case(volume: Volume, case: Case) -> dict[str, float]:
    """Return the clinical measures of a volume on the cube of a case; see `raylift.evaluation.clinical`."""
    return clinical_measures(volume.array, case.truth.array, case.truth.grid.spacing)
