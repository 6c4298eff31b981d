"""Volumes in the image files that ITK reads and writes: MetaImage, NIfTI and NRRD."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from raylift.errors import BadInput
from raylift.geometry import MOST_VOXELS
from raylift.images.volume import Volume
from raylift.io.image_headers import image_reader
from raylift.storage.paths import suffix_of


def read(path: Path) -> Volume:
    """Read a .mha, .mhd, .nrrd, .nii or .nii.gz file.

    Raises:
        BadInput: it is damaged, names other files than it may, or is no scalar three-dimensional image.
    """
    reader = image_reader(path)
    try:
        reader.ReadImageInformation()
        if math.prod(reader.GetSize()) > MOST_VOXELS:
            raise BadInput(path, f"{reader.GetSize()} voxels (x, y, z)", "give one scan")
        if suffix_of(path) in (".nii", ".nii.gz"):
            _check_nifti(path, reader)
        image = reader.Execute()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise BadInput(path, f"cannot be read ({reason})", "the file is damaged or cut short; copy it again") from None
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        kind = f"{image.GetDimension()} dimensions, {image.GetNumberOfComponentsPerPixel()} values per voxel"
        raise BadInput(path, f"not a scalar 3D volume ({kind})", "export a single CT volume")
    return Volume.from_sitk(image)


def _check_nifti(path: Path, image: sitk.ImageFileReader) -> None:
    """Raise BadInput for voxels that ITK's reader makes 0 without a word: those cut off, NaN or infinite."""
    first, values = int(float(image.GetMetaData("vox_offset"))), math.prod(image.GetSize())
    last = first + values * int(image.GetMetaData("bitpix")) // 8
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path, "rb") if packed else path.open("rb") as file:
            content = file.read(last)  # what comes after it is nobody's, and may unpack to any size
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(path, f"cannot be read ({error})", "the file is damaged or cut short; copy it again") from None
    missing = last - len(content)
    if missing > 0:
        raise BadInput(path, f"cannot be read (its last {missing} bytes are missing)", "copy it again")
    if kind := {"16": "f4", "64": "f8"}.get(image.GetMetaData("datatype")):
        order = "<" if int.from_bytes(content[:4], "little") in (348, 540) else ">"
        voxels = np.frombuffer(content, order + kind, values, first)
        if count := int((~np.isfinite(voxels)).sum()):
            raise BadInput(path, f"{count} voxels are NaN or infinite", "repair the file or export it again")


def write(volume: Volume, path: Path) -> None:
    """Write a .mha, .nrrd or .nii.gz file, compressed. Raises BadInput where it cannot be read again."""
    sitk.WriteImage(volume.to_sitk(), str(path), useCompression=True)
    if suffix_of(path) == ".nii.gz":  # ITK says nothing where the disk is full
        read(path)
