"""CT series read from the DICOM files of a folder."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk

from raylift.errors import BadInput
from raylift.images.volume import Volume


def read_series(folder: Path) -> Volume:
    """Read the one CT series in a folder.

    Raises:
        BadInput: there is none, or more than one, or its slices do not make a volume.
    """
    series: dict[str, list[tuple[float, float, Path]]] = defaultdict(list)
    for file in sorted(p for p in folder.iterdir() if p.is_file()):
        try:
            header = pydicom.dcmread(
                file,
                stop_before_pixels=True,
                specific_tags=[
                    "SeriesInstanceUID",
                    "Modality",
                    "ImagePositionPatient",
                    "ImageOrientationPatient",
                ],
            )
            axes = np.reshape(np.asarray(header.ImageOrientationPatient, float), (2, 3))
            corner = np.asarray(header.ImagePositionPatient, float)
            position, aside = float(np.cross(*axes) @ corner), float(axes[1] @ corner)
            uid, modality = str(header.SeriesInstanceUID), header.Modality
            if modality != "CT":
                continue
        except (pydicom.errors.InvalidDicomError, AttributeError, ValueError, OSError):
            continue  # licences, DICOMDIR, scouts without a position: not slices of a series
        series[uid].append((position, aside, file))
    if not series:
        raise BadInput(folder, "no DICOM CT slices in this folder", "give the folder that holds one CT series")
    if len(series) > 1:
        counts = ", ".join(f"{len(slices)} slices" for slices in series.values())
        raise BadInput(folder, f"{len(series)} series in one folder ({counts})", "put each series in its own folder")
    slices = sorted(next(iter(series.values())))
    if len(slices) < 2:
        raise BadInput(folder, "a single DICOM slice", "give the folder of the whole series")
    gaps = np.diff([position for position, _, _ in slices])
    if gaps.max() < 0.1:
        raise BadInput(folder, "all slices lie at one place", "give a series that moves along the patient")
    tilt = np.diff([aside for _, aside, _ in slices])
    if np.abs(tilt).max() > 0.05 * np.median(gaps):
        raise BadInput(folder, "slices of a tilted gantry", "resample the series to slices that lie square")
    if gaps.max() - gaps.min() > 0.05 * np.median(gaps):
        raise BadInput(
            folder,
            f"slice gaps from {gaps.min():.2f} to {gaps.max():.2f} mm",
            "slices are missing or doubled",
        )
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(file) for _, _, file in slices])
    try:
        return Volume.from_sitk(reader.Execute())
    except RuntimeError as error:
        raise BadInput(
            folder, f"cannot be read ({str(error).strip().splitlines()[-1]})", "copy the series again"
        ) from None
