"""A prepared dataset: its cases and splits, read and checked."""

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

AGAIN = "run raylift data prepare again"
KEPT = 10_000
FILES = ("ct.nii.gz", "context.npy", "xrays.mha")  # of a case
MOST_BYTES = 512 * 2**20  # of dataset.json and of splits.json; a million cases take half of it


@dataclass(frozen=True)
class Case:
    """A prepared case; its files are read when asked for, and BadInput is raised if one is missing or damaged."""

    name: str
    folder: StoragePath
    isocentre: Point
    context_grid: VolumeGrid
    xrays_shape: tuple[int, int, int]
    voxels: int

    @property
    def truth(self) -> Volume:
        """The target cube, int16 HU."""
        with self._reading("ct.nii.gz") as path:
            volume = read_volume(path)
            _check_shape(volume.array, (self.voxels,) * 3)
            return volume

    @property
    def xrays(self) -> np.ndarray:
        """The stored X-rays (V, rows, columns), float32 line integrals."""
        with self._reading("xrays.mha") as path:
            reader = image_reader(path)
            reader.ReadImageInformation()
            if reader.GetSize()[::-1] != self.xrays_shape or reader.GetPixelID() != sitk.sitkFloat32:
                raise ValueError(f"{reader.GetSize()[::-1]} values, not {self.xrays_shape} of float32")
            array: np.ndarray = sitk.GetArrayFromImage(reader.Execute())
            if not np.isfinite(array).all():
                raise ValueError("NaN or infinite values")
            return array

    @cached_property
    def context(self) -> np.ndarray:
        """The whole scan (z, y, x), int16 HU on `context_grid`, memory-mapped."""
        with self._reading("context.npy") as path:
            array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
            _check_shape(array, self.context_grid.shape)
            if array.dtype != np.int16:
                raise ValueError(f"values of type {array.dtype}, not int16")
            return array

    @contextmanager
    def _reading(self, name: str) -> Iterator[Path]:
        try:
            path = cached_copy(self.folder / name)
            size_of(path)  # a pipe would be waited for without end
            yield path
        except Unreachable:
            raise
        except (OSError, EOFError, RuntimeError, ValueError) as error:  # RuntimeError is ITK's
            reason = [type(error).__name__, *str(error).strip().splitlines()][-1]
            raise BadInput(self.folder, f"its {name} cannot be read ({reason})", AGAIN) from None


def _check_shape(array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{array.shape} values, not {shape}")


class Cases(Sequence[Case]):
    """Cases of a dataset by number, opened when they are asked for, so that their number costs nothing.

    The last `KEPT` stay open: a system maps some 65,000 files into a process.

    Args:
        dataset: that they belong to.
        names: of the cases.
    """

    def __init__(self, dataset: PreparedDataset, names: Sequence[str]) -> None:
        self.names = names
        self._opened = lru_cache(KEPT)(dataset.case)

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, which: int) -> Case: ...

    @overload
    def __getitem__(self, which: slice) -> list[Case]: ...

    def __getitem__(self, which: int | slice) -> Case | list[Case]:
        """Raises BadInput where a case's record is missing, damaged, or not the one in `dataset.json`."""
        if isinstance(which, slice):
            return [self._opened(name) for name in self.names[which]]
        return self._opened(self.names[which])


class PreparedDataset:
    """The folder that `raylift data prepare` writes.

    Args:
        folder: holds `dataset.json`, `splits.json` and `cases/`.

    Raises:
        BadInput: it does not, or a split names what is no usable case.
    """

    def __init__(self, folder: str | StoragePath) -> None:
        self.folder = storage_path(folder)
        try:
            self.info = read_record(self.folder / "dataset.json", DatasetInfo, MOST_BYTES)
            splits = read_json(self.folder / "splits.json", MOST_BYTES)
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
        """SHA-256 that tells this dataset from others: unit, cube, views, cases and splits."""
        info = self.info.model_dump(mode="json", include={"geometry", "voxels", "cube_mm", "views", "cases"})
        return hashlib.sha256(json.dumps([info, self.splits], sort_keys=True).encode()).hexdigest()

    def stamp(self, split: str) -> str | None:
        """Return a digest of the size and time of the files of a split's cases; None where they are in a store."""
        if not isinstance(self.folder, Path):
            return None
        digest = hashlib.sha256()
        for name in self.names(split):
            for file in FILES:
                with suppress(OSError):  # said when it is read
                    found = (self.folder / "cases" / name / file).stat()
                    digest.update(f"{name}/{file} {found.st_size} {found.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def changed(self, split: str) -> list[str]:
        """Return those of a split's cases on this machine whose files are not those that their records tell of."""
        found = []
        for name in self.names(split):
            folder = self.folder / "cases" / name
            if isinstance(folder, Path):
                record = read_record(folder / "case.json", CaseRecord)
                try:
                    same = checksum(folder / file for file in record.files) == record.sha256
                except OSError:
                    same = False
                if not same:
                    found.append(name)
        return found

    def _check_splits(self) -> None:
        """Raise ValueError unless every name is a usable case's, once; results are written under these names."""
        usable = {name for name, case in self.info.cases.items() if case.status == "ok"}
        seen = set[str]()
        for name in itertools.chain(*self.splits.values()):
            if name not in usable:
                raise ValueError(f"{name!r} in a split is no usable case")
            if name in seen:
                raise ValueError(f"{name!r} stands in the splits twice")
            seen.add(name)

    def names(self, split: str) -> list[str]:
        """Case names of "train", "validation", or "all".

        Raises:
            WrongUsage: there is no such split.
            BadInput: it is empty.
        """
        known(split, [*self.splits, "all"], f"split of {self.folder}")
        names = sorted(itertools.chain(*self.splits.values())) if split == "all" else self.splits[split]
        if not names:
            raise BadInput(self.folder, f"no cases in the split '{split}'", "name another one")
        return names

    def case(self, name: str) -> Case:
        """One case. Raises BadInput if its record is missing, damaged, or not the one in `dataset.json`."""
        folder = self.folder / "cases" / name
        pixels = self.geometry.pixels
        try:
            record = read_record(folder / "case.json", CaseRecord)
            x, y, z = record.isocentre_lps_mm
            same = record.sha256 == self.info.cases[name].sha256
        except Unreachable:
            raise
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise BadInput(folder, f"not a prepared case ({error})", AGAIN) from None
        if not same:
            # An interrupted run with other settings leaves cases that dataset.json, written last, does not describe.
            raise BadInput(folder, "not the case that dataset.json tells of", AGAIN)
        return Case(name, folder, (x, y, z), record.context_grid, (len(self.views), pixels, pixels), self.voxels)

    def cases(self, split: str) -> Cases:
        """All cases of a split."""
        return Cases(self, self.names(split))

    def view_indices(self, views: Sequence[View]) -> list[int]:
        """Where the wanted views stand among the stored ones. Raises BadInput if one is not stored."""
        missing = [view.name for view in views if view not in self.views]
        if missing:
            stored = ", ".join(view.name for view in self.views)
            raise BadInput(self.folder, f"no X-rays of view {', '.join(missing)}", f"it has {stored}")
        return [self.views.index(view) for view in views]
