"""Write a volume as a DICOM series of CT images: PS3.3 A.3."""

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
    """Write a volume as a DICOM series with one file per slice.

    Args:
        volume: Hounsfield units; rounded to integers.
        folder: a new or empty folder; the slice of the lowest index z becomes `0001.dcm`.
        study: the study of the series.
        number: the number of the series in its study, from 1.
        description: the description of the series, at most 64 characters.
        windows: centre and width in HU of each window for display.
    """
    folder.mkdir(parents=True, exist_ok=True)
    series = new_uid()
    for index in range(volume.array.shape[0]):
        dataset = study.instance(CTImageStorage, series, number, index + 1, "CT", description)
        dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = study.frame, ""
        dataset.WindowCenter = [decimal(centre) for centre, _ in windows]
        dataset.WindowWidth = [decimal(width) for _, width in windows]
        _fill(dataset, volume, index)
        dataset.save_as(folder / f"{index + 1:04d}.dcm", enforce_file_format=True)


def _fill(dataset: Dataset, volume: Volume, index: int) -> None:
    """Set the position and the pixels of slice `index` along z in a dataset."""
    dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    dataset.PatientPosition, dataset.KVP, dataset.AcquisitionNumber = "HFS", None, None
    axes = np.reshape(volume.grid.direction, (3, 3)).T
    position = (volume.grid.index_to_world @ [0, 0, index, 1])[:3]
    dataset.ImageOrientationPatient = [decimal(cosine) for cosine in axes[:2].ravel()]
    dataset.ImagePositionPatient = [decimal(x) for x in position]
    dataset.SliceLocation = decimal(axes[2] @ position)
    column_spacing, row_spacing, slice_spacing = volume.grid.spacing
    dataset.PixelSpacing = [decimal(row_spacing), decimal(column_spacing)]
    dataset.SliceThickness = dataset.SpacingBetweenSlices = decimal(slice_spacing)

    hu = np.clip(np.rint(volume.array[index]), -32768, 32767).astype("<i2")
    dataset.Rows, dataset.Columns = hu.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "HU"
    dataset.PixelData = hu.tobytes()
