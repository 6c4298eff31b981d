"""Read and check a prepared dataset: its cases and splits."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import overload

import numpy as np
import SimpleITK as sitk

from raylift.data.case_records import CaseRecord, DatasetInfo, Splits
from raylift.errors import BadInput, known
from raylift.geometry import Point, View, VolumeGrid
from raylift.images.volume import Volume
from raylift.io.image_headers import image_reader
from raylift.io.volumes import read_volume
from raylift.storage.copies import cached_copy
from raylift.storage.paths import StoragePath, Unreachable, checksum, size_of, storage_path
from raylift.storage.records import parse_record, read_json, read_record

PREPARE_AGAIN = "run raylift data prepare again"
MAX_OPEN_CASES = 10_000
CASE_FILES = ("ct.nii.gz", "context.npy", "xrays.mha")  # in a case's folder
MOST_INDEX_BYTES = 512 * 2**20  # size of dataset.json or of splits.json; a million cases need half of it


@dataclass(frozen=True)
class Case:
    """A prepared case, whose files are read on access; BadInput is raised where one is missing or damaged.

    Args:
        name: the case's name.
        folder: the case's folder.
        isocentre: world point (x, y, z) in mm of the middle of the target cube.
        context_grid: the grid of `context`.
        xrays_shape: the shape (V, rows, columns) of `xrays`.
        voxels: the edge of the target cube in voxels.
    """

    name: str
    folder: StoragePath
    isocentre: Point
    context_grid: VolumeGrid
    xrays_shape: tuple[int, int, int]
    voxels: int

    @property
    def truth(self) -> Volume:
        """The target cube (z, y, x), int16 in HU."""
        with self._local_file("ct.nii.gz") as path:
            volume = read_volume(path)
            _check_shape(volume.array, (self.voxels,) * 3)
            return volume

    @property
    def xrays(self) -> np.ndarray:
        """The stored X-rays (V, rows, columns), float32 line integrals, dimensionless."""
        with self._local_file("xrays.mha") as path:
            reader = image_reader(path)
            reader.ReadImageInformation()
            shape = reader.GetSize()[::-1]
            correct = shape == self.xrays_shape and reader.GetPixelID() == sitk.sitkFloat32
            _require(correct, f"{shape} values, not {self.xrays_shape} of float32")
            array: np.ndarray = sitk.GetArrayFromImage(reader.Execute())
            _require(bool(np.isfinite(array).all()), "NaN or infinite values")
            return array

    @cached_property
    def context(self) -> np.ndarray:
        """The whole scan (z, y, x), int16 in HU on `context_grid`, memory-mapped."""
        with self._local_file("context.npy") as path:
            array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
            _check_shape(array, self.context_grid.shape)
            _require(array.dtype == np.int16, f"values of type {array.dtype}, not int16")
            return array

    @contextmanager
    def _local_file(self, name: str) -> Iterator[Path]:
        """Open a file of the case on this machine, and raise BadInput in place of the block's errors.

        Args:
            name: the file's name in the case's folder.

        Yields:
            The file's path on this machine.

        Raises:
            BadInput: the file is missing or damaged.
            Unreachable: a store does not answer.
        """
        try:
            path = cached_copy(self.folder / name)
            size_of(path)  # reading a pipe might never end
            yield path
        except Unreachable:
            raise
        except (OSError, EOFError, RuntimeError, ValueError) as error:  # ITK raises RuntimeError
            reason = [type(error).__name__, *str(error).strip().splitlines()][-1]
            raise BadInput(self.folder, f"its {name} cannot be read ({reason})", PREPARE_AGAIN) from None


def _check_shape(array: np.ndarray, shape: tuple[int, ...]) -> None:
    """Check the shape of an array. Raises ValueError, through `_require`, where it is another."""
    _require(array.shape == shape, f"{array.shape} values, not {shape}")


def _require(condition: bool, problem: str) -> None:
    """Check a condition on the values in a file.

    Raises:
        ValueError: the condition is not met; the message is the problem.
    """
    if not condition:
        raise ValueError(problem)


class Cases(Sequence[Case]):
    """A sequence of a dataset's cases, each opened on access, so that large datasets need no time to open.

    The last `MAX_OPEN_CASES` stay open, as a system maps at most some 65,000 files into a process. Access raises
    BadInput, as `PreparedDataset.case` does.

    Args:
        dataset: the dataset.
        names: the names of the cases.
    """

    def __init__(self, dataset: PreparedDataset, names: Sequence[str]) -> None:
        self.names = names
        self._open = lru_cache(MAX_OPEN_CASES)(dataset.case)

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Case: ...

    @overload
    def __getitem__(self, index: slice) -> list[Case]: ...

    def __getitem__(self, index: int | slice) -> Case | list[Case]:
        if isinstance(index, slice):
            return [self._open(name) for name in self.names[index]]
        return self._open(self.names[index])


class PreparedDataset:
    """A dataset folder written by `raylift data prepare`.

    Args:
        folder: the folder with `dataset.json`, `splits.json` and `cases/`.

    Raises:
        BadInput: the folder is no such dataset, or a split contains a name that is not a usable case.
    """

    def __init__(self, folder: str | StoragePath) -> None:
        self.folder = storage_path(folder)
        try:
            self.info = read_record(self.folder / "dataset.json", DatasetInfo, MOST_INDEX_BYTES)
            splits = read_json(self.folder / "splits.json", MOST_INDEX_BYTES)
            self.splits = parse_record({"splits": splits}, Splits).splits
            self.geometry, self.views = self.info.geometry, tuple(self.info.views)
            self.voxels, self.cube_mm = self.info.voxels, self.info.cube_mm
            self._check_splits()
        except Unreachable:
            raise
        except OSError:
            raise BadInput(folder, "not a prepared dataset", "make one with raylift data prepare") from None
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(
                folder, f"its dataset.json or splits.json is damaged ({error})", "prepare it again"
            ) from None

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of geometry, cube, views, cases and splits, which identifies the dataset."""
        info = self.info.model_dump(mode="json", include={"geometry", "voxels", "cube_mm", "views", "cases"})
        return hashlib.sha256(json.dumps([info, self.splits], sort_keys=True).encode()).hexdigest()

    def stamp(self, split: str) -> str | None:
        """Return a digest of sizes and times of the files of a split's cases; None for a dataset in a store."""
        if not isinstance(self.folder, Path):
            return None
        digest = hashlib.sha256()
        for name in self.names(split):
            for file in CASE_FILES:
                with suppress(OSError):  # reported when the file is read
                    status = (self.folder / "cases" / name / file).stat()
                    digest.update(f"{name}/{file} {status.st_size} {status.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def changed(self, split: str) -> list[str]:
        """Return the names of a split's cases on this machine whose files do not match their records' checksums."""
        names = []
        for name in self.names(split):
            folder = self.folder / "cases" / name
            if isinstance(folder, Path):
                record = read_record(folder / "case.json", CaseRecord)
                try:
                    same = checksum(folder / file for file in record.files) == record.sha256
                except OSError:
                    same = False
                if not same:
                    names.append(name)
        return names

    def _check_splits(self) -> None:
        """Check that the splits contain only usable cases, each once; results are written under these names.

        Raises:
            ValueError: they do not.
        """
        usable = {name for name, case in self.info.cases.items() if case.status == "ok"}
        checked = set[str]()
        for name in itertools.chain(*self.splits.values()):
            if name not in usable:
                raise ValueError(f"{name!r} in a split is not a usable case")
            if name in checked:
                raise ValueError(f"{name!r} occurs in the splits twice")
            checked.add(name)

    def names(self, split: str) -> list[str]:
        """Return the names of the cases in a split.

        Raises WrongUsage, through `known`, where there is no such split.

        Args:
            split: "train", "validation" or "all".

        Raises:
            BadInput: the split is empty.
        """
        known(split, [*self.splits, "all"], f"split of {self.folder}")
        names = sorted(itertools.chain(*self.splits.values())) if split == "all" else self.splits[split]
        if not names:
            raise BadInput(self.folder, f"no cases in the split '{split}'", "choose another split")
        return names

    def case(self, name: str) -> Case:
        """Return a case.

        Raises:
            BadInput: the case's record is missing, damaged, or not the one in `dataset.json`.
            Unreachable: a store does not answer.
        """
        folder = self.folder / "cases" / name
        pixels = self.geometry.pixels
        try:
            record = read_record(folder / "case.json", CaseRecord)
            x, y, z = record.isocentre_lps_mm
            same = record.sha256 == self.info.cases[name].sha256
        except Unreachable:
            raise
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise BadInput(folder, f"not a prepared case ({error})", PREPARE_AGAIN) from None
        if not same:
            # An interrupted run with other settings leaves cases that dataset.json, written last, does not describe.
            raise BadInput(folder, "not the case that dataset.json describes", PREPARE_AGAIN)
        return Case(name, folder, (x, y, z), record.context_grid, (len(self.views), pixels, pixels), self.voxels)

    def cases(self, split: str) -> Cases:
        """Return all cases of a split. Raises the same as `names`."""
        return Cases(self, self.names(split))

    def view_indices(self, views: Sequence[View]) -> list[int]:
        """Return the indices of views among the stored ones.

        Raises:
            BadInput: a view is not stored.
        """
        missing = [view.name for view in views if view not in self.views]
        if missing:
            stored = ", ".join(view.name for view in self.views)
            raise BadInput(self.folder, f"no X-rays of view {', '.join(missing)}", f"it has {stored}")
        return [self.views.index(view) for view in views]
