"""Radiographs in DICOM files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from raylift.errors import BadInput
from raylift.geometry import View
from raylift.io.dicom import LINE_INTEGRALS, view_at
from raylift.radiographs.checks import check_line_integrals, check_size, describe_damage, square_pixel
from raylift.radiographs.radiograph import Radiograph, square
from raylift.radiographs.tone import Grey

# View names by DICOM's ViewPosition; other values are ignored. A lateral without a side is taken for a left lateral.
POSITIONS = {
    "AP": "ap",
    "PA": "pa",
    "LL": "lateral-left",
    "RL": "lateral-right",
    "LAT": "lateral-left",
    "LATERAL": "lateral-left",
}
# DICOM's modalities of projection images, and those of images whose modality was lost.
MODALITIES = ("CR", "DX", "RG", "RF", "XA", "OT", "")
DISTANCES = (300.0, 5000.0)  # mm; plausible range of the distance from source to detector
OPEN = 99.5  # percentile of the raw values that is taken for the open field
LEAST_TRANSMISSION = 1e-4  # share of the open field to which smaller raw values are raised


def read_dicom(path: Path) -> Radiograph | Grey:
    """Read the line integrals or the grey levels of a DICOM file; see `raylift.radiographs.read_radiograph`.

    Returns:
        A `Radiograph` where the file holds line integrals or raw detector values, or else its `Grey` levels.

    Raises:
        BadInput: the file is damaged, or is no single grey radiograph.
    """
    try:
        dataset = pydicom.dcmread(path)
        _check(path, dataset)
        distances = _distances(dataset)
        pixel_mm = square_pixel(path, _spacing(dataset, distances))
        if (image := _line_integrals(dataset)) is not None:
            check_line_integrals(path, image)
            note = "line integrals, as declared by the file"
            return Radiograph(square(image), pixel_mm, note, view=_view(dataset), distances=distances)
        position = str(dataset.get("ViewPosition") or "").upper()
        facts = [f"DICOM view {position}" if position else ""]
        if raw := _is_raw(dataset):
            grey = _logarithm(dataset.pixel_array)
        else:
            grey = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(np.float32)
            # INVERSE goes with MONOCHROME1 and says the same; where the two disagree, the newer attribute wins.
            shape = dataset.get("PresentationLUTShape")
            if shape == "INVERSE" if shape else dataset.PhotometricInterpretation == "MONOCHROME1":
                grey = grey.max() - grey
                facts.append("inverted, as declared in DICOM")
        grey, changes = _orient(path, grey, dataset.get("PatientOrientation") or [])
    except BadInput:
        raise
    except Exception as error:  # decoders fail on damaged files in more ways than they document
        raise BadInput(path, *describe_damage(error)) from None
    view = View.parse(POSITIONS[position]) if position in POSITIONS else None
    facts = [fact for fact in (*facts, changes) if fact]
    if not raw:
        return Grey(path, grey, pixel_mm, tuple(facts), view, distances, polarity_known=True)
    check_line_integrals(path, grey)
    note = "line integrals, computed as the logarithm of the open field over the raw detector values"
    return Radiograph(square(grey), pixel_mm, ", ".join([note, *facts]), True, view, distances)


def _check(path: Path, dataset: Dataset) -> None:
    """Check that a file holds one grey radiograph that can be decoded.

    Raises:
        BadInput: it does not.
    """
    modality = str(dataset.get("Modality") or "")
    if modality not in MODALITIES:
        raise BadInput(path, f"a DICOM file of modality {modality}", "give a radiograph (CR or DX)")
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise BadInput(path, f"{dataset.NumberOfFrames} frames in one file", "export a single image")
    if "PixelData" not in dataset:
        raise BadInput(path, "a DICOM file without an image", "give a radiograph (CR or DX)")
    if dataset.SamplesPerPixel != 1:
        raise BadInput(path, "a colour DICOM image", "give a greyscale radiograph")
    check_size(path, dataset.Rows, dataset.Columns)
    syntax = dataset.file_meta.TransferSyntaxUID
    if not get_decoder(syntax).is_available:
        remedy = "run `pip install python-gdcm`, or export it uncompressed"
        raise BadInput(path, f"compressed as {syntax.name}", remedy)


def _distances(dataset: Dataset) -> tuple[float, float] | None:
    """Return the source's distances from axis and detector in mm; None where the file has no plausible ones."""
    sad, sdd = (
        float(dataset.get(keyword) or math.nan) for keyword in ("DistanceSourceToPatient", "DistanceSourceToDetector")
    )
    return (sad, sdd) if DISTANCES[0] <= sad < sdd <= DISTANCES[1] else None


def _spacing(dataset: Dataset, distances: tuple[float, float] | None) -> np.ndarray:
    """Return the height and width (2,) in mm of a pixel on the detector; empty where the file has none."""
    if on_detector := dataset.get("ImagerPixelSpacing"):
        return np.asarray(on_detector, float)
    spacing = np.ravel(np.asarray(dataset.get("PixelSpacing") or [], float))
    if dataset.get("PixelSpacingCalibrationType") not in ("GEOMETRY", "FIDUCIAL"):
        return spacing
    # The spacing holds in a plane of the patient, which the detector shows magnified.
    magnification = dataset.get("EstimatedRadiographicMagnificationFactor") or (
        distances and distances[1] / distances[0]
    )
    return spacing * float(magnification or 1)


def _line_integrals(dataset: Dataset) -> np.ndarray | None:
    """Return the line integrals (rows, columns) that the file maps its pixels to; None where it maps them to none."""
    for item in dataset.get("RealWorldValueMappingSequence") or []:
        if item.get("LUTLabel") == LINE_INTEGRALS:
            slope, intercept = float(item.RealWorldValueSlope), float(item.RealWorldValueIntercept)
            return (dataset.pixel_array * slope + intercept).astype(np.float32)
    return None


def _view(dataset: Dataset) -> View | None:
    """Return the view of an image of line integrals, from the positioner's angle and the direction of its rows."""
    angle, orientation = dataset.get("PositionerPrimaryAngle"), dataset.get("PatientOrientation") or [""]
    if angle is None:
        return None
    plain = View(view_at(float(angle)))
    towards = {"L": plain.u[0], "R": -plain.u[0], "P": plain.u[1], "A": -plain.u[1]}.get(str(orientation[0])[:1], 1.0)
    return View(plain.angle, mirrored=bool(towards < 0))


def _is_raw(dataset: Dataset) -> bool:
    """Return whether pixels are raw detector values, proportional to the exposure."""
    keywords = ("PresentationIntentType", "PixelIntensityRelationship", "PixelIntensityRelationshipSign")
    return [str(dataset.get(keyword)) for keyword in keywords] == ["FOR PROCESSING", "LIN", "1"]


def _logarithm(raw: np.ndarray) -> np.ndarray:
    """Return ln(I₀ / I) of raw values I (rows, columns), where I₀ is the open field, their brightest part."""
    open_field = max(float(np.percentile(raw, OPEN)), 1.0)
    logarithm: np.ndarray = -np.log(np.clip(raw / open_field, LEAST_TRANSMISSION, 1)).astype(np.float32)
    return logarithm


def _orient(path: Path, grey: np.ndarray, orientation: Sequence[str]) -> tuple[np.ndarray, str]:
    """Return an image oriented for reading, and a description of how it was turned.

    Args:
        path: of the file, for messages.
        grey: the image (rows, columns).
        orientation: DICOM's PatientOrientation: the directions along a row and down a column.

    Returns:
        The image, with columns running to the patient's left or back and rows to the feet; and what was done to it,
        empty where nothing was.

    Raises:
        BadInput: the patient lies on the side in the image.
    """
    if len(orientation) != 2:
        return grey, ""
    along_row, along_column = (str(direction)[:1] for direction in orientation)
    if along_row in ("H", "F"):
        raise BadInput(path, "the patient lies on the side in this image", "rotate it so that the head is up")
    changes = []
    if along_row in ("R", "A"):
        grey = grey[:, ::-1]
        changes.append("flipped left to right")
    if along_column == "H":
        grey = grey[::-1]
        changes.append("turned head up")
    return grey, " and ".join(changes)
