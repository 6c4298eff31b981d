"""Projection matrices as cameras, in the conventions of OpenCV, RTK and Plastimatch.

A matrix P (3, 4) maps a point to w (a, b, 1): a and b are its coordinates on the detector. It says where the source is
and which ray each pixel has, but not how far away the detector is, which is given beside it.

| | world | a, b | w |
| --- | --- | --- | --- |
| OpenCV | DICOM's, mm | column and row, the first pixel's centre is (0, 0) | positive in front of the source |
| RTK | IEC's: left, up, front, mm | mm on the detector, where the image has an origin and a spacing | negative |
| Plastimatch | DICOM's, mm | column and row from the image centre that its file states first | positive |
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raylift.geometry.camera import Beam, Camera
from raylift.geometry.plausible import Point

# From DICOM's axes (left, back, up) to those of IEC 61217 for a patient on the back: left, up, front.
TO_IEC = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
PLASTIMATCH_NUMBERS = 16  # image centre, matrix, SAD and SID, at the beginning of a file


def to_opencv(camera: Camera) -> np.ndarray:
    """Return a camera's projection matrix (3, 4) in OpenCV's convention, with w in mm along its axis.

    Raises:
        ValueError: its beam is no cone.
    """
    if camera.beam is not Beam.CONE:
        raise ValueError("a projection matrix needs one source, not a source that moves")
    source = np.asarray(camera.source)
    pixels = np.stack([camera.column_step, camera.row_step, np.asarray(camera.corner) - source], 1)
    matrix: np.ndarray = camera.distance * np.linalg.inv(pixels) @ np.hstack([np.eye(3), -source[:, None]])
    return matrix


def from_opencv(matrix: np.ndarray, rows: int, columns: int, distance: float) -> Camera:
    """Return the camera of a projection matrix in OpenCV's convention.

    Args:
        matrix: (3, 4), of any scale.
        rows: of the detector.
        columns: of the detector.
        distance: from the source to the detector in mm.

    Raises:
        ValueError: the matrix is not (3, 4), or its source is at infinity.
    """
    matrix = np.asarray(matrix, float)
    if matrix.shape != (3, 4) or not np.isfinite(matrix).all() or np.linalg.cond(matrix[:, :3]) > 1e12:
        raise ValueError("a projection matrix needs 3 × 4 numbers, and a source that is not at infinity")
    matrix = matrix / np.linalg.norm(matrix[2, :3])  # w is then the depth in mm
    inverse = np.linalg.inv(matrix[:, :3])
    source = -inverse @ matrix[:, 3]
    column_step, row_step, first = (distance * inverse).T
    return Camera(_point(source), _point(source + first), _point(row_step), _point(column_step), rows, columns)


def to_rtk(camera: Camera, origin: Sequence[float], spacing: Sequence[float]) -> np.ndarray:
    """Return a camera's projection matrix (3, 4) in RTK's convention.

    Args:
        camera: with a cone beam.
        origin: coordinates (u, v) of the first pixel's centre in mm.
        spacing: of the pixels along (u, v) in mm; rows of RTK's images run upwards, if it is positive.
    """
    matrix: np.ndarray = -np.linalg.inv(_pixel_of(origin, spacing)) @ to_opencv(camera) @ np.linalg.inv(TO_IEC)
    return matrix


def from_rtk(
    matrix: np.ndarray, rows: int, columns: int, distance: float, origin: Sequence[float], spacing: Sequence[float]
) -> Camera:
    """Return the camera of a projection matrix in RTK's convention; see `to_rtk` and `from_opencv`."""
    return from_opencv(-_pixel_of(origin, spacing) @ np.asarray(matrix, float) @ TO_IEC, rows, columns, distance)


def from_plastimatch(text: str, rows: int, columns: int) -> Camera:
    """Return the camera of the content of a geometry file that `plastimatch drr` writes.

    Raises:
        ValueError: it is no such file.
    """
    numbers = np.array([float(word) for word in text.split("Extrinsic")[0].split()[:PLASTIMATCH_NUMBERS]])
    if len(numbers) < PLASTIMATCH_NUMBERS:
        raise ValueError("a geometry file of Plastimatch begins with 16 numbers")
    (column, row), matrix, sid = numbers[:2], numbers[2:14].reshape(3, 4), numbers[15]
    return from_opencv(np.array([[1, 0, column], [0, 1, row], [0, 0, 1]]) @ matrix, rows, columns, sid)


def to_plastimatch(camera: Camera, sad: float, centre: Sequence[float]) -> str:
    """Return the content of a geometry file of Plastimatch, as far as its programs read it.

    Args:
        camera: with a cone beam.
        sad: distance from the source to the isocentre in mm.
        centre: (column, row) where the ray through the isocentre meets the detector.
    """
    column, row = centre
    matrix = np.array([[1, 0, -column], [0, 1, -row], [0, 0, 1]]) @ to_opencv(camera) / camera.distance
    lines = [(column, row), *matrix, (sad,), (camera.distance,), camera.axis]
    return "".join(" ".join(f"{number:.9e}" for number in line) + "\n" for line in lines)


def _pixel_of(origin: Sequence[float], spacing: Sequence[float]) -> np.ndarray:
    """Return the matrix (3, 3) from (u, v, 1) in mm to (column, row, 1)."""
    (u, v), (du, dv) = origin, spacing
    return np.array([[1 / du, 0, -u / du], [0, 1 / dv, -v / dv], [0, 0, 1]])


def _point(vector: np.ndarray) -> Point:
    x, y, z = (float(value) for value in vector)
    return (x, y, z)
