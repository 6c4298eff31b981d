"""Read and write volumes in the image files of ITK: MetaImage, NIfTI and NRRD."""

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

    Returns:
        The volume in Hounsfield units, with the file's axes and type.

    Raises:
        BadInput: the file is damaged, names a file outside its folder, or is not a scalar three-dimensional image.
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
    """Check for voxels that ITK's reader silently replaces by 0: missing, NaN or infinite ones.

    Raises:
        BadInput: there are such voxels.
    """
    first, values = int(float(image.GetMetaData("vox_offset"))), math.prod(image.GetSize())
    last = first + values * int(image.GetMetaData("bitpix")) // 8
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path, "rb") if compressed else path.open("rb") as file:
            content = file.read(last)  # bytes after it are not used, and could expand to any size
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
    """Write a compressed .mha, .nrrd or .nii.gz file. Raises BadInput, through `read`, where a .nii.gz is damaged."""
    sitk.WriteImage(volume.to_sitk(), str(path), useCompression=True)
    if suffix_of(path) == ".nii.gz":  # ITK raises no error when the disk is full
        read(path)
