"""A volume as a DICOM series of CT images: PS3.3 A.3."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from raylift.images.volume import Volume
from raylift.io.dicom.study import Study, decimal, new_uid


def write_ct(
    volume: Volume, folder: Path, study: Study, number: int, description: str, windows: Sequence[tuple[float, float]]
) -> None:
    """Write a volume as a series, a file for each slice, into a new or empty folder.

    Args:
        volume: Hounsfield units; rounded to integers.
        folder: for `0001.dcm` (the lowest index z) and so on.
        study: what the series belongs to.
        number: of the series in its study, from 1.
        description: of the series, at most 64 characters.
        windows: centre and width in HU for display.
    """
    folder.mkdir(parents=True, exist_ok=True)
    series = new_uid()
    for index in range(volume.array.shape[0]):
        made = study.instance(CTImageStorage, series, number, index + 1, "CT", description)
        made.FrameOfReferenceUID, made.PositionReferenceIndicator = study.frame, ""
        made.WindowCenter = [decimal(centre) for centre, _ in windows]
        made.WindowWidth = [decimal(width) for _, width in windows]
        _fill(made, volume, index)
        made.save_as(folder / f"{index + 1:04d}.dcm", enforce_file_format=True)


def _fill(made: Dataset, volume: Volume, index: int) -> None:
    """Place and pixels of slice `index` along z."""
    made.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    made.PatientPosition, made.KVP, made.AcquisitionNumber = "HFS", None, None
    along = np.reshape(volume.grid.direction, (3, 3)).T
    position = (volume.grid.index_to_world @ [0, 0, index, 1])[:3]
    made.ImageOrientationPatient = [decimal(cosine) for cosine in along[:2].ravel()]
    made.ImagePositionPatient = [decimal(x) for x in position]
    made.SliceLocation = decimal(along[2] @ position)
    across, down, between = volume.grid.spacing
    made.PixelSpacing = [decimal(down), decimal(across)]
    made.SliceThickness = made.SpacingBetweenSlices = decimal(between)

    hu = np.clip(np.rint(volume.array[index]), -32768, 32767).astype("<i2")
    made.Rows, made.Columns = hu.shape
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 1
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 16, 15
    made.RescaleIntercept, made.RescaleSlope, made.RescaleType = 0, 1, "HU"
    made.PixelData = hu.tobytes()
