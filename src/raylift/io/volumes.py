"""Read and write CT volumes in Hounsfield units."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from raylift.errors import BadInput
from raylift.images.volume import Volume
from raylift.io.dicom.archive import unpacked
from raylift.io.dicom.files import read_dicom_file
from raylift.io.dicom.series import read_series
from raylift.io.formats import FORMATS, readable, writable
from raylift.io.image_headers import check_name
from raylift.storage.atomic import atomic_write_folder
from raylift.storage.paths import StoragePath, storage_path, suffix_of


def read_volume(path: str | Path) -> Volume:
    """Read a CT scan.

    Example:
        >>> from raylift import read_volume
        >>> volume = read_volume("chest.nii.gz")
        >>> volume.array.shape, volume.grid.spacing
        ((67, 66, 89), (5.0, 5.0, 5.0))

    Args:
        path: a folder or a zip archive with the DICOM files of one series, an Enhanced CT file, or a file of one of the
            formats of `FORMATS`.

    Returns:
        The volume in Hounsfield units, without NaN; integer types are kept. Its array axes are permuted and flipped so
        that they run as nearly as possible along +z, +y and +x of the world. Its notes say what was left out or
        changed.

    Raises:
        BadInput: the file is missing, unreadable, not three-dimensional, or holds NaN or infinite values; or the folder
            holds no series, several, or one with missing slices.
    """
    path = Path(path)
    if not path.exists():
        raise BadInput(path, "no such file or folder", "check the path")
    ending = suffix_of(path).removeprefix(".")
    if path.is_dir():
        volume = read_series(path)
    elif ending in FORMATS and FORMATS[ending].reads:
        volume = FORMATS[ending].read(path)
    elif ending == "zip":
        with unpacked(path) as folder:
            volume = read_series(folder)
    elif read_dicom_file(path, []) is not None:
        volume = read_series(path)
    else:
        raise BadInput(path, "not a CT format Raylift reads", f"give a DICOM folder or one of {', '.join(readable())}")
    if not np.isfinite(volume.array).all():
        count = int((~np.isfinite(volume.array)).sum())
        raise BadInput(path, f"{count} voxels are NaN or infinite", "repair the file or export it again")
    if min(volume.array.shape) < 2:
        raise BadInput(path, f"only {volume.array.shape} voxels (z, y, x)", "a CT needs at least 2 per axis")
    return replace(volume.axis_aligned(), notes=volume.notes)


def check_writable(path: str | StoragePath) -> StoragePath:
    """Return a path after checking that Raylift writes its ending.

    Raises:
        BadInput: Raylift does not write it; the message lists the endings that it writes. Or the name is not text.
    """
    path = storage_path(path)
    if isinstance(path, Path):
        check_name(path)
    if suffix_of(path) not in writable():
        raise BadInput(path, "not a volume format Raylift writes", f"end the name in one of {', '.join(writable())}")
    return path


def write_volume(volume: Volume, path: str | StoragePath) -> StoragePath:
    """Write a volume and its grid to a file, as a whole or not at all.

    Args:
        volume: values in Hounsfield units; floating point is rounded to int16.
        path: a path or URL with one of the endings of `writable()`; a format of several files writes them side by side.

    Raises BadInput, through `check_writable`, where Raylift does not write the ending.

    Returns:
        The path.
    """
    path = check_writable(path)
    if volume.array.dtype.kind == "f":
        volume = Volume(np.clip(np.rint(volume.array), -32768, 32767).astype(np.int16), volume.grid)
    with atomic_write_folder(path.parent) as folder:
        FORMATS[suffix_of(path).removeprefix(".")].write(volume, folder / path.name)
    return path
