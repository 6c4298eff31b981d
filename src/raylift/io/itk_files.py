"""Read volumes in the image files of ITK, MetaImage and NRRD, and write these and NIfTI."""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import replace
from pathlib import Path

import SimpleITK as sitk

from raylift.errors import BadInput
from raylift.geometry import MOST_VOXELS
from raylift.images.volume import Volume
from raylift.io.image_headers import image_reader, length_in_mm
from raylift.storage.paths import suffix_of

PIECE = 2**20  # bytes


def read(path: Path) -> Volume:
    """Read a .mha, .mhd or .nrrd file.

    Returns:
        The volume in Hounsfield units, with the file's axes and type.

    Raises:
        BadInput: the file is damaged, names a file outside its folder, or is not a scalar three-dimensional image.
    """
    reader, unit = image_reader(path), length_in_mm(path)
    try:
        reader.ReadImageInformation()
        if math.prod(reader.GetSize()) > MOST_VOXELS:
            raise BadInput(path, f"{reader.GetSize()} voxels (x, y, z)", "give one scan")
        image = reader.Execute()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise BadInput(path, f"cannot be read ({reason})", "the file is damaged or cut short; copy it again") from None
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        kind = f"{image.GetDimension()} dimensions, {image.GetNumberOfComponentsPerPixel()} values per voxel"
        raise BadInput(path, f"not a scalar 3D volume ({kind})", "export a single CT volume")
    image.SetSpacing([unit * length for length in image.GetSpacing()])
    image.SetOrigin([unit * length for length in image.GetOrigin()])
    note = () if unit == 1 else (f"lengths scaled to mm from units of {unit:g} mm, which the file declares",)
    return replace(Volume.from_sitk(image), notes=note)


def write(volume: Volume, path: Path) -> None:
    """Write a compressed .mha, .nrrd or .nii.gz file.

    Raises:
        BadInput: a .nii.gz is incomplete, since the disk is full; ITK raises no error then.
    """
    sitk.WriteImage(volume.to_sitk(), str(path), useCompression=True)
    if suffix_of(path) == ".nii.gz":
        try:
            with gzip.open(path, "rb") as file:
                while file.read(PIECE):
                    pass
        except (OSError, EOFError, zlib.error) as error:
            raise BadInput(path, f"not completely written ({error})", "make room on the disk") from None
