"""What a DICOM radiograph says of distances, of the size and place of its pixels, and of its orientation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom.dataset import Dataset

from raylift.geometry import View
from raylift.io.dicom import view_at
from raylift.radiographs.checks import square_pixel
from raylift.radiographs.placement import Placement

DISTANCES = (300.0, 5000.0)  # mm; plausible range of the distance from source to detector
AGREE = 0.03  # relative difference up to which two statements of one length agree
OTHER_SIZE = 0.15  # relative difference up to which a field of view may be a nominal one


class DetectorPlane(NamedTuple):
    """Where an image's pixels lie, with the fields of `Radiograph` of the same names."""

    pixel_mm: float | None
    distances: tuple[float | None, float] | None
    at_axis: bool
    placement: Placement | None


def detector_plane(path: Path, dataset: Dataset, to_axis: bool) -> tuple[DetectorPlane, list[str]]:
    """Return where the pixels of a file lie, and notes on what it says of that and is not used.

    Args:
        path: the file, for messages.
        dataset: its content.
        to_axis: its DistanceSourceToPatient is that to the isocentre.

    Raises:
        BadInput: the pixels are not square.
    """
    distances, unused_distance = _distances(dataset, to_axis)
    pixel_mm, at_axis = _spacing(path, dataset)
    placement, unused_place = _placement(dataset, pixel_mm, at_axis)
    notes = [note for note in (unused_distance, unused_place, *_contradictions(dataset, pixel_mm)) if note]
    return DetectorPlane(pixel_mm, distances, at_axis, placement), notes


def _contradictions(dataset: Dataset, pixel_mm: float | None) -> Iterator[str]:
    """Yield what the file says of its size besides the pixel spacing that is used, where that disagrees with it."""
    spacing = _pair(dataset, "PixelSpacing")
    if dataset.get("ImagerPixelSpacing") and spacing and not dataset.get("PixelSpacingCalibrationType"):
        imager = np.ravel(np.asarray(dataset.ImagerPixelSpacing, float))[0]
        # On its way to the detector the patient is magnified, by at most two.
        if not 0.5 * imager <= spacing[0] <= (1 + AGREE) * imager:
            yield f"PixelSpacing {spacing[0]:g} mm disagrees with ImagerPixelSpacing {imager:g} mm, which is used"
    size = _pair(dataset, "FieldOfViewDimensions")
    if size is not None and pixel_mm is not None:
        edges = sorted(pixel_mm * n for n in (dataset.Rows, dataset.Columns))
        if any(abs(a - b) > OTHER_SIZE * b for a, b in zip(edges, sorted(size), strict=True)):
            yield (
                f"FieldOfViewDimensions {size[0]:g} × {size[1]:g} mm disagree with the pixel spacing, which is used: "
                f"{pixel_mm * dataset.Rows:.0f} × {pixel_mm * dataset.Columns:.0f} mm"
            )


def _distances(dataset: Dataset, to_axis: bool) -> tuple[tuple[float | None, float] | None, str]:
    """Return the source's distances from axis and detector in mm, and a note on a distance that is not used.

    DistanceSourceToPatient of XA images and of Raylift's own line integrals is that to the isocentre. Of CR and DX
    images it is that to the support nearest to the patient, such as the front of a bucky (PS3.3 C.8.11.5): to no axis.
    """
    to_patient, to_detector = (
        float(dataset.get(keyword) or math.nan) for keyword in ("DistanceSourceToPatient", "DistanceSourceToDetector")
    )
    if not DISTANCES[0] <= to_detector <= DISTANCES[1]:
        return None, ""
    if to_axis:
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
    in_plane = np.ravel(np.asarray(dataset.get("PixelSpacing") or [], float))
    if not len(in_plane):
        square_pixel(path, np.ravel(np.asarray(dataset.get("PixelAspectRatio") or [], float)), unit="")
        return None, False
    if dataset.get("PixelSpacingCalibrationType") not in ("GEOMETRY", "FIDUCIAL"):
        return square_pixel(path, in_plane), False
    # The spacing holds in a plane of the patient, which the detector shows magnified; 1 stands for "not known".
    magnification = float(dataset.get("EstimatedRadiographicMagnificationFactor") or 1)
    return square_pixel(path, in_plane * magnification), magnification == 1


def _placement(dataset: Dataset, pixel_mm: float | None, at_axis: bool) -> tuple[Placement | None, str]:
    """Return where the stored image lies on the detector, and a note on what the file says of it and is not used.

    Origins are counted in the elements of the physical detector, from its first element, before the image was rotated
    clockwise and then flipped for storage (PS3.3 C.8.11.4.1.1).
    """
    keyword = next((key for key in ("FieldOfViewOrigin", "DetectorActiveOrigin") if _pair(dataset, key)), None)
    if keyword is None:
        return None, ""
    row, column = _pair(dataset, keyword) or (0.0, 0.0)
    if pixel_mm is None or at_axis:
        unused = f"{keyword} not used, since the file has no pixel spacing on the detector"
        return None, unused if row or column else ""
    element = _pair(dataset, "DetectorElementSpacing") or (pixel_mm, pixel_mm)
    turns = round(float(dataset.get("FieldOfViewRotation") or 0) / 90) % 4
    height, width = (pixel_mm * n for n in (dataset.Rows, dataset.Columns))
    if turns % 2:
        height, width = width, height
    edges, outside = list[float | None](), False
    for axis, (start, edge) in enumerate(((row, height), (column, width))):
        middle, size = start * element[axis] + edge / 2, _detector_size(dataset, axis, element[axis])
        edges += [middle, None if size is None else size - middle]
        outside |= size is not None and middle + edge / 2 > (1 + AGREE) * size
    if outside:
        return None, f"{keyword} not used, since the image would lie beyond the detector that the file declares"
    return Placement(*edges).turned(-turns, dataset.get("FieldOfViewHorizontalFlip") == "YES"), ""


def _detector_size(dataset: Dataset, axis: int, element: float) -> float | None:
    """Return the physical detector's size along its rows (0) or columns (1) in mm; None where it is unknown.

    Its margin around the active area is assumed to be as wide at the far edge as at the near one.
    """
    if physical := _pair(dataset, "PhysicalDetectorSize"):
        return physical[axis]
    if active := _pair(dataset, "DetectorActiveDimensions"):
        margin = (_pair(dataset, "DetectorActiveOrigin") or (0.0, 0.0))[axis] * element
        return active[axis] + 2 * margin
    return None


def _pair(dataset: Dataset, keyword: str) -> tuple[float, float] | None:
    """Return the value for rows and that for columns of an attribute; None where it has no two numbers."""
    values = [float(value) for value in np.ravel(np.asarray(dataset.get(keyword) or [], float))]
    return (values[0], values[1]) if len(values) == 2 else None


def view_of_line_integrals(dataset: Dataset) -> View | None:
    """Return the view of an image of line integrals, from the positioner's angle and the direction of its rows."""
    angle, orientation = dataset.get("PositionerPrimaryAngle"), dataset.get("PatientOrientation") or [""]
    if angle is None:
        return None
    plain = View(view_at(float(angle)))
    towards = {"L": plain.u[0], "R": -plain.u[0], "P": plain.u[1], "A": -plain.u[1]}.get(str(orientation[0])[:1], 1.0)
    return View(plain.angle, mirrored=bool(towards < 0))


def reading_orientation(orientation: Sequence[str]) -> tuple[int, bool, str]:
    """Return how an image is turned for reading, so that columns run to the patient's left or back, rows to the feet.

    Args:
        orientation: DICOM's PatientOrientation: the directions along a row and down a column.

    Returns:
        The number of quarter turns, counter-clockwise; whether left and right are swapped after them; and a
        description of both, empty where nothing is to be done.
    """
    if len(orientation) != 2:
        return 0, False, ""
    along_row, along_column = (str(direction)[:1] for direction in orientation)
    changes = []
    if swapped := along_row in ("H", "F"):
        along_row, along_column = along_column, along_row
        changes.append("rows and columns swapped")
    if mirrored := along_row in ("R", "A"):
        changes.append("flipped left to right")
    if upside_down := along_column == "H":
        changes.append("turned head up")
    # A transposition is a quarter turn counter-clockwise, then upside down; upside down is half a turn, then mirrored.
    turns = swapped + 2 * (swapped != upside_down)
    return turns, mirrored != (swapped != upside_down), " and ".join(changes)
