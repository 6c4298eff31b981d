"""Radiographs in DICOM files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut, get_decoder

from raylift.errors import BadInput
from raylift.geometry import View
from raylift.io.dicom import LINE_INTEGRALS, view_at
from raylift.radiographs.checks import check_line_integrals, check_size, damaged, square_pixel
from raylift.radiographs.radiograph import Radiograph, square
from raylift.radiographs.tone import Grey

# DICOM's ViewPosition; other values, and files without, say nothing. A lateral whose side is not said is a left one.
POSITIONS = {
    "AP": "ap",
    "PA": "pa",
    "LL": "lateral-left",
    "RL": "lateral-right",
    "LAT": "lateral-left",
    "LATERAL": "lateral-left",
}
# DICOM's modalities of projection images, and of those whose kind got lost.
MODALITIES = ("CR", "DX", "RG", "RF", "XA", "OT", "")
DISTANCES = (300.0, 5000.0)  # mm; of a source from a detector
OPEN = 99.5  # percentile of raw values that the open field has
LEAST = 1e-4  # of the open field: what raw values below are taken for


def read_dicom(path: Path) -> Radiograph | Grey:
    """The line integrals or grey levels of a DICOM file; see `raylift.radiographs.read_radiograph`."""
    try:
        dataset = pydicom.dcmread(path)
        _check(path, dataset)
        distances = _distances(dataset)
        pixel_mm = square_pixel(path, _spacing(dataset, distances))
        if (image := _line_integrals(dataset)) is not None:
            check_line_integrals(path, image)
            note = "line integrals, as the file says"
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
                facts.append("inverted as DICOM says")
        grey, turned = _orient(path, grey, dataset.get("PatientOrientation") or [])
    except BadInput:
        raise
    except Exception as error:  # decoders fail on damaged files in more ways than they document
        raise damaged(path, error) from None
    view = View.parse(POSITIONS[position]) if position in POSITIONS else None
    facts = [fact for fact in (*facts, turned) if fact]
    if not raw:
        return Grey(path, grey, pixel_mm, tuple(facts), view, distances, polarity_known=True)
    check_line_integrals(path, grey)
    note = "line integrals: the logarithm of raw detector values, below that of the open field"
    return Radiograph(square(grey), pixel_mm, ", ".join([note, *facts]), True, view, distances)


def _check(path: Path, dataset: Dataset) -> None:
    """Raises BadInput for a file that is not one grey image that can be decoded."""
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
    """Of the source from the axis and the detector in mm, where the file says both and they make sense."""
    sad, sdd = (
        float(dataset.get(keyword) or math.nan) for keyword in ("DistanceSourceToPatient", "DistanceSourceToDetector")
    )
    return (sad, sdd) if DISTANCES[0] <= sad < sdd <= DISTANCES[1] else None


def _spacing(dataset: Dataset, distances: tuple[float, float] | None) -> np.ndarray:
    """Height and width (2,) of a pixel on the detector in mm; empty where the file does not say it."""
    if on_detector := dataset.get("ImagerPixelSpacing"):
        return np.asarray(on_detector, float)
    spacing = np.ravel(np.asarray(dataset.get("PixelSpacing") or [], float))
    if dataset.get("PixelSpacingCalibrationType") not in ("GEOMETRY", "FIDUCIAL"):
        return spacing
    # Calibrated to a plane in the patient, which is seen magnified.
    magnification = dataset.get("EstimatedRadiographicMagnificationFactor") or (
        distances and distances[1] / distances[0]
    )
    return spacing * float(magnification or 1)


def _line_integrals(dataset: Dataset) -> np.ndarray | None:
    """Pixels as line integrals (rows, columns), where the file maps them to these."""
    for item in dataset.get("RealWorldValueMappingSequence") or []:
        if item.get("LUTLabel") == LINE_INTEGRALS:
            slope, intercept = float(item.RealWorldValueSlope), float(item.RealWorldValueIntercept)
            return (dataset.pixel_array * slope + intercept).astype(np.float32)
    return None


def _view(dataset: Dataset) -> View | None:
    """The view of an image of line integrals, by the angle of its unit and the way its rows run."""
    angle, orientation = dataset.get("PositionerPrimaryAngle"), dataset.get("PatientOrientation") or [""]
    if angle is None:
        return None
    plain = View(view_at(float(angle)))
    towards = {"L": plain.u[0], "R": -plain.u[0], "P": plain.u[1], "A": -plain.u[1]}.get(str(orientation[0])[:1], 1.0)
    return View(plain.angle, mirrored=bool(towards < 0))


def _is_raw(dataset: Dataset) -> bool:
    """Whether pixels are as the detector gave them, in proportion to what reached it."""
    told = ("PresentationIntentType", "PixelIntensityRelationship", "PixelIntensityRelationshipSign")
    return [str(dataset.get(keyword)) for keyword in told] == ["FOR PROCESSING", "LIN", "1"]


def _logarithm(raw: np.ndarray) -> np.ndarray:
    """ln(I₀ / I) of raw values I (rows, columns), the open field I₀ being their brightest."""
    opened = max(float(np.percentile(raw, OPEN)), 1.0)
    logarithm: np.ndarray = -np.log(np.clip(raw / opened, LEAST, 1)).astype(np.float32)
    return logarithm


def _orient(path: Path, grey: np.ndarray, orientation: Sequence[str]) -> tuple[np.ndarray, str]:
    """The image with columns running to the left or back and rows to the feet, and what was done to it."""
    if len(orientation) != 2:
        return grey, ""
    along_row, along_column = (str(direction)[:1] for direction in orientation)
    if along_row in ("H", "F"):
        raise BadInput(path, "the patient lies on the side in this image", "rotate it so that the head is up")
    done = []
    if along_row in ("R", "A"):
        grey = grey[:, ::-1]
        done.append("flipped left to right")
    if along_column == "H":
        grey = grey[::-1]
        done.append("turned head up")
    return grey, " and ".join(done)
