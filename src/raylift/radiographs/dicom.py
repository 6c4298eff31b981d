"""Radiographs in DICOM files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from raylift.errors import BadInput
from raylift.geometry import View
from raylift.io.dicom import LINE_INTEGRALS, view_at
from raylift.io.dicom.files import read_dicom_file
from raylift.io.dicom.pixels import check_decodable, stored_values
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
        dataset = read_dicom_file(path)
        if dataset is None:
            raise BadInput(path, "not a DICOM file", "copy or export it again")
        _check(path, dataset)
        stored, padding = stored_values(dataset)
        exposed = np.ones(stored.shape, bool) if padding is None else ~padding
        if not exposed.any():
            raise BadInput(path, "all pixels are padding", "export it again")
        facts = [] if padding is None else ["padding left out"]
        if any(float(offset) for offset in dataset.get("FieldOfViewOrigin") or []):
            facts.append("FieldOfViewOrigin not used: taken to be centred on the detector")
        distances, distance_note = _distances(dataset)
        pixel_mm, at_axis = _spacing(path, dataset)
        if (image := _line_integrals(dataset, stored)) is not None:
            image[~exposed] = 0
            check_line_integrals(path, image)
            note = ", ".join(["line integrals, as declared by the file", *facts])
            return Radiograph(square(image), pixel_mm, note, False, _view(dataset), distances)
        position = str(dataset.get("ViewPosition") or "").upper()
        facts = [f"DICOM view {position}" if position else "", *facts, distance_note]
        if raw := _is_raw(dataset):
            grey = _logarithm(stored, exposed)
        else:
            grey = apply_voi_lut(apply_modality_lut(stored, dataset), dataset).astype(np.float32)
            # INVERSE goes with MONOCHROME1 and says the same; where the two disagree, the newer attribute wins.
            shape = dataset.get("PresentationLUTShape")
            if shape == "INVERSE" if shape else dataset.PhotometricInterpretation == "MONOCHROME1":
                grey = grey[exposed].max() - grey
                facts.append("inverted, as declared in DICOM")
            grey[~exposed] = grey[exposed].min()
        grey, changes = _orient(grey, dataset.get("PatientOrientation") or [])
    except BadInput:
        raise
    except Exception as error:  # decoders fail on damaged files in more ways than they document
        raise BadInput(path, *describe_damage(error)) from None
    view = View.parse(POSITIONS[position]) if position in POSITIONS else None
    facts = [fact for fact in (*facts, changes) if fact]
    if not raw:
        return Grey(path, grey, pixel_mm, tuple(facts), view, distances, at_axis, polarity_known=True)
    check_line_integrals(path, grey)
    note = "line integrals, computed as the logarithm of the open field over the raw detector values"
    return Radiograph(square(grey), pixel_mm, ", ".join([note, *facts]), True, view, distances, at_axis)


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
    if dataset.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2"):
        kind = str(dataset.PhotometricInterpretation)[:20]
        raise BadInput(path, f"pixels that are {kind}, not grey", "give a greyscale radiograph")
    check_size(path, dataset.Rows, dataset.Columns)
    try:
        check_decodable(dataset)
    except ValueError as error:
        raise BadInput(path, str(error), "run `pip install python-gdcm`, or export it uncompressed") from None


def _distances(dataset: Dataset) -> tuple[tuple[float | None, float] | None, str]:
    """Return the source's distances from axis and detector in mm, and a note on a distance that is not used.

    DistanceSourceToPatient of XA images and of Raylift's own line integrals is that to the isocentre. Of CR and DX
    images it is that to the support nearest to the patient, such as the front of a bucky (PS3.3 C.8.11.5): to no axis.
    """
    to_patient, to_detector = (
        float(dataset.get(keyword) or math.nan) for keyword in ("DistanceSourceToPatient", "DistanceSourceToDetector")
    )
    if not DISTANCES[0] <= to_detector <= DISTANCES[1]:
        return None, ""
    if str(dataset.get("Modality")) in ("XA", "RF") or _mapping(dataset) is not None:
        return ((to_patient, to_detector) if DISTANCES[0] <= to_patient < to_detector else None), ""
    if math.isnan(to_patient):
        return (None, to_detector), ""
    note = f"DistanceSourceToPatient {to_patient:g} mm not used, since it is to a support and not to an axis"
    return (None, to_detector), note


def _spacing(path: Path, dataset: Dataset) -> tuple[float | None, bool]:
    """Return the edge of a pixel in mm, and whether that is in a plane of the patient rather than on the detector.

    Raises:
        BadInput: the pixels are not square.
    """
    if on_detector := dataset.get("ImagerPixelSpacing"):
        return square_pixel(path, np.asarray(on_detector, float)), False
    spacing = np.ravel(np.asarray(dataset.get("PixelSpacing") or [], float))
    if not len(spacing):
        square_pixel(path, np.ravel(np.asarray(dataset.get("PixelAspectRatio") or [], float)), unit="")
        return None, False
    if dataset.get("PixelSpacingCalibrationType") not in ("GEOMETRY", "FIDUCIAL"):
        return square_pixel(path, spacing), False
    # The spacing holds in a plane of the patient, which the detector shows magnified; 1 stands for "not known".
    magnification = float(dataset.get("EstimatedRadiographicMagnificationFactor") or 1)
    return square_pixel(path, spacing * magnification), magnification == 1


def _mapping(dataset: Dataset) -> Dataset | None:
    """Return the item that maps stored values to line integrals; None where the file has none."""
    items = dataset.get("RealWorldValueMappingSequence") or []
    return next((item for item in items if item.get("LUTLabel") == LINE_INTEGRALS), None)


def _line_integrals(dataset: Dataset, stored: np.ndarray) -> np.ndarray | None:
    """Return the line integrals (rows, columns) that the file maps stored values to; None where there is no mapping."""
    if (item := _mapping(dataset)) is None:
        return None
    return (stored * float(item.RealWorldValueSlope) + float(item.RealWorldValueIntercept)).astype(np.float32)


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


def _logarithm(raw: np.ndarray, exposed: np.ndarray) -> np.ndarray:
    """Return ln(I₀ / I) of raw values I (rows, columns), where I₀ is the open field, the brightest part exposed.

    Pixels that are not exposed are air.
    """
    open_field = max(float(np.percentile(raw[exposed], OPEN)), 1.0)
    transmission = np.where(exposed, np.clip(raw / open_field, LEAST_TRANSMISSION, 1), 1)
    logarithm: np.ndarray = -np.log(transmission).astype(np.float32)
    return logarithm


def _orient(grey: np.ndarray, orientation: Sequence[str]) -> tuple[np.ndarray, str]:
    """Return an image oriented for reading, and a description of how it was turned.

    Args:
        grey: the image (rows, columns).
        orientation: DICOM's PatientOrientation: the directions along a row and down a column.

    Returns:
        The image, with columns running to the patient's left or back and rows to the feet; and what was done to it,
        empty where nothing was.
    """
    if len(orientation) != 2:
        return grey, ""
    along_row, along_column = (str(direction)[:1] for direction in orientation)
    changes = []
    if along_row in ("H", "F"):
        grey, along_row, along_column = grey.T, along_column, along_row
        changes.append("rows and columns swapped")
    if along_row in ("R", "A"):
        grey = grey[:, ::-1]
        changes.append("flipped left to right")
    if along_column == "H":
        grey = grey[::-1]
        changes.append("turned head up")
    return grey, " and ".join(changes)
