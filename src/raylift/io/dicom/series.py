"""Read CT series from the DICOM files of a folder."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk

from raylift.errors import BadInput
from raylift.images.volume import Volume

TAGS = ["SeriesInstanceUID", "Modality", "ImagePositionPatient", "ImageOrientationPatient"]
Slice = tuple[float, float, Path]  # position across the slices and along their columns in mm; the file


def read_series(folder: Path) -> Volume:
    """Read the only CT series in a folder.

    Returns:
        The volume in Hounsfield units.

    Raises:
        BadInput: the folder holds no series or more than one, or its slices do not form a volume.
    """
    series = _series_in(folder)
    if not series:
        raise BadInput(folder, "no DICOM CT slices in this folder", "give the folder that holds one CT series")
    if len(series) > 1:
        counts = ", ".join(f"{len(slices)} slices" for slices in series.values())
        raise BadInput(folder, f"{len(series)} series in one folder ({counts})", "put each series in its own folder")
    slices = sorted(next(iter(series.values())))
    _check_spacing(folder, slices)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(file) for _, _, file in slices])
    try:
        return Volume.from_sitk(reader.Execute())
    except RuntimeError as error:
        raise BadInput(
            folder, f"cannot be read ({str(error).strip().splitlines()[-1]})", "copy the series again"
        ) from None


def _series_in(folder: Path) -> dict[str, list[Slice]]:
    """Return the slices of each CT series in a folder by the series' UID; other files are ignored."""
    series: dict[str, list[Slice]] = defaultdict(list)
    for file in sorted(p for p in folder.iterdir() if p.is_file()):
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=TAGS)
            axes = np.reshape(np.asarray(header.ImageOrientationPatient, float), (2, 3))
            corner = np.asarray(header.ImagePositionPatient, float)
            position, offset = float(np.cross(*axes) @ corner), float(axes[1] @ corner)
            uid, modality = str(header.SeriesInstanceUID), header.Modality
            if modality != "CT":
                continue
        except (pydicom.errors.InvalidDicomError, AttributeError, ValueError, OSError):
            continue  # licences, DICOMDIR, scouts without a position: not slices of a series
        series[uid].append((position, offset, file))
    return series


def _check_spacing(folder: Path, slices: list[Slice]) -> None:
    """Check that slices, sorted by position, are evenly spaced and not tilted.

    Raises:
        BadInput: they are not, or there is only one.
    """
    if len(slices) < 2:
        raise BadInput(folder, "a single DICOM slice", "give the folder of the whole series")
    gaps = np.diff([position for position, _, _ in slices])
    if gaps.max() < 0.1:
        raise BadInput(folder, "all slices have the same position", "give a series of slices along the patient")
    tilt = np.diff([offset for _, offset, _ in slices])
    if np.abs(tilt).max() > 0.05 * np.median(gaps):
        raise BadInput(folder, "slices of a tilted gantry", "resample the series to slices at right angles to its axis")
    if gaps.max() - gaps.min() > 0.05 * np.median(gaps):
        raise BadInput(
            folder,
            f"slice gaps from {gaps.min():.2f} to {gaps.max():.2f} mm",
            "slices are missing or doubled",
        )
