"""The camera: where the rays of an X-ray image begin and where they meet its pixels.

Every description of a source and a detector is a way to write one: presets and arcs (`Geometry`), C-arms with two
angles, crops, rectangular and off-centre detectors, and projection matrices (`raylift.geometry.matrices`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np

from raylift.geometry.plausible import FARTHEST, Point, plain_integer, plain_list, plain_number
from raylift.geometry.view import View

MOST_PIXELS = 2**14  # along a detector's edge, accepted from a file


class Beam(Enum):
    """Whether the source stands still, or moves with the pixels."""

    CONE = "cone"  # one point emits all rays
    SLOT = "slot"  # the source moves along with the rows: a fan across the columns, parallel along the rows
    PARALLEL = "parallel"  # all rays are parallel

    @property
    def moves(self) -> tuple[float, float]:
        """Steps of the source for each row and each column of the detector, in steps of its pixels."""
        return {Beam.CONE: (0.0, 0.0), Beam.SLOT: (1.0, 0.0), Beam.PARALLEL: (1.0, 1.0)}[self]


@dataclass(frozen=True)
class Camera:
    """A source and a flat detector in world coordinates, mm.

    The ray of pixel (r, c) ends at e = corner + r row_step + c column_step, and begins at source + a r row_step +
    b c column_step, where (a, b) are the beam's `moves`.

    Example:
        >>> from raylift.geometry import Camera
        >>> camera = Camera((0, -1000, 0), (-1, 200, 0), (0, 0, -2), (1, 0, 0), rows=4, columns=3)
        >>> camera.project([[0, 200, -2]]).round(6).tolist()
        [[1.0, 1.0]]

    Args:
        source: where the ray of the first pixel begins.
        corner: centre of the first pixel.
        row_step: from a pixel to the one in the next row.
        column_step: from a pixel to the one in the next column.
        rows: number of rows.
        columns: number of columns.
        beam: how the source moves.
    """

    source: Point
    corner: Point
    row_step: Point
    column_step: Point
    rows: int
    columns: int
    beam: Beam = Beam.CONE

    def __post_init__(self) -> None:
        across = np.cross(self.column_step, self.row_step)
        steps = np.linalg.norm(self.row_step) * np.linalg.norm(self.column_step)
        if min(self.rows, self.columns) < 1 or not np.linalg.norm(across) > 1e-3 * steps > 0:
            raise ValueError("a camera needs pixels, and two steps between them in different directions")
        if not abs((np.asarray(self.source) - self.corner) @ across) > 1e-6 * np.linalg.norm(across):
            raise ValueError("a camera's source cannot lie in the plane of its detector")

    @property
    def axis(self) -> np.ndarray:
        """The unit vector (3,) perpendicular to the detector, towards the source."""
        normal = np.cross(self.column_step, self.row_step)
        normal *= np.sign((np.asarray(self.source) - self.corner) @ normal)
        unit: np.ndarray = normal / np.linalg.norm(normal)
        return unit

    @property
    def distance(self) -> float:
        """The distance from the source to the detector's plane in mm."""
        return float((np.asarray(self.source) - self.corner) @ self.axis)

    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the start and the end, each (rows, columns, 3) in mm, of the ray that meets each pixel."""
        a, b = self.beam.moves
        rows = np.arange(self.rows)[:, None, None] * np.asarray(self.row_step)
        columns = np.arange(self.columns)[None, :, None] * np.asarray(self.column_step)
        return self.source + a * rows + b * columns, self.corner + rows + columns

    def project(self, points: Any) -> np.ndarray:
        """Project world points onto the detector.

        With t = (source − p) · axis / distance, the depth of a point p as a share of its ray,
        p − (1 − t) source − t corner = r ((1 − t) a + t) row_step + c ((1 − t) b + t) column_step.

        Args:
            points: world positions (..., 3) in mm, in front of the source.

        Returns:
            Continuous pixel coordinates (..., 2) as (row, column); (0, 0) is the centre of the first pixel.
        """
        points = np.asarray(points, float)
        t = ((self.source - points) @ self.axis / self.distance)[..., None]
        in_plane = points - (1 - t) * self.source - t * self.corner
        dual = np.linalg.pinv(np.stack([self.row_step, self.column_step], 1)).T
        pixels: np.ndarray = in_plane @ dual / ((1 - t) * self.beam.moves + t)
        return pixels

    def with_pixels(self, rows: int, columns: int) -> Camera:
        """Return the same detector, divided into other pixels."""
        if (rows, columns) == (self.rows, self.columns):
            return self
        row_step = np.asarray(self.row_step) * self.rows / rows
        column_step = np.asarray(self.column_step) * self.columns / columns
        change = (row_step - self.row_step + column_step - self.column_step) / 2
        a, b = self.beam.moves
        moved = (a * (row_step - self.row_step) + b * (column_step - self.column_step)) / 2
        return replace(
            self,
            source=_point(self.source + moved),
            corner=_point(self.corner + change),
            row_step=_point(row_step),
            column_step=_point(column_step),
            rows=rows,
            columns=columns,
        )

    def cropped(self, top: int, left: int, rows: int, columns: int) -> Camera:
        """Return the part of the detector whose first pixel is (top, left)."""
        down, right = top * np.asarray(self.row_step), left * np.asarray(self.column_step)
        a, b = self.beam.moves
        source, corner = self.source + a * down + b * right, self.corner + down + right
        return replace(self, source=_point(source), corner=_point(corner), rows=rows, columns=columns)

    def moved(self, turn: Sequence[float], shift: Sequence[float], about: Sequence[float]) -> Camera:
        """Return the camera turned about a point, and shifted after that.

        Args:
            turn: rotation vector (x, y, z) in degrees, right-handed.
            shift: (x, y, z) in mm.
            about: the world point (x, y, z) in mm.
        """
        from scipy.spatial.transform import Rotation  # seldom needed, and slow to import

        rotation, centre = Rotation.from_rotvec(turn, degrees=True), np.asarray(about, float)
        source, corner = (
            rotation.apply(p - centre) + centre + shift for p in map(np.asarray, (self.source, self.corner))
        )
        row_step, column_step = rotation.apply([self.row_step, self.column_step])
        return replace(
            self,
            source=_point(source),
            corner=_point(corner),
            row_step=_point(row_step),
            column_step=_point(column_step),
        )

    def at(self, point: Any) -> Camera:
        """Return the parallel camera along the axis that sees the plane through a point as this camera does."""
        t = float((self.source - np.asarray(point, float)) @ self.axis / self.distance)
        corner = (1 - t) * np.asarray(self.source) + t * np.asarray(self.corner)
        a, b = ((1 - t) * move + t for move in self.beam.moves)
        return replace(
            self,
            source=_point(corner + self.distance * self.axis),
            corner=_point(corner),
            row_step=_point(a * np.asarray(self.row_step)),
            column_step=_point(b * np.asarray(self.column_step)),
            beam=Beam.PARALLEL,
        )

    @property
    def view(self) -> View:
        """The view of the nearest angle about the patient's long axis, for names, and for weights that count angles."""
        x, y, _ = self.axis
        angle = math.degrees(math.atan2(x, -y)) % 360
        plain = View(0.0 if angle > 360 - 1e-9 else angle)
        return replace(plain, mirrored=bool(plain.u @ self.column_step < 0))

    @property
    def middle_ray(self) -> tuple[np.ndarray, np.ndarray]:
        """The start and the end (3,) in mm of the ray to the detector's middle."""
        a, b = self.beam.moves
        down, right = (
            (self.rows - 1) / 2 * np.asarray(self.row_step),
            (self.columns - 1) / 2 * np.asarray(self.column_step),
        )
        return self.source + a * down + b * right, self.corner + down + right

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description, which `from_dict` reads back."""
        return {
            "source_mm": list(self.source),
            "first_pixel_mm": list(self.corner),
            "row_step_mm": list(self.row_step),
            "column_step_mm": list(self.column_step),
            "rows": self.rows,
            "columns": self.columns,
            "beam": self.beam.value,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Camera:
        """Return the camera that `to_dict` described.

        Raises KeyError where an entry is missing, and ValueError where one is malformed.
        """
        source, corner, row_step, column_step = (
            _point([plain_number(x, -FARTHEST, FARTHEST) for x in plain_list(data[key], 3)])
            for key in ("source_mm", "first_pixel_mm", "row_step_mm", "column_step_mm")
        )
        rows, columns = (plain_integer(data[key], 1, MOST_PIXELS) for key in ("rows", "columns"))
        return cls(source, corner, row_step, column_step, rows, columns, Beam(data.get("beam", "cone")))


def common_point(cameras: Sequence[Camera], share: float) -> Point:
    """Return the point that is nearest to the middle rays of cameras, by least squares.

    Args:
        cameras: at least one.
        share: of the way to the detector at which the point lies where all rays are parallel, or there is one alone.
    """
    matrix, vector = np.zeros((3, 3)), np.zeros(3)
    for camera in cameras:
        start, end = camera.middle_ray
        along = (end - start) / np.linalg.norm(end - start)
        across = np.eye(3) - np.outer(along, along)
        # A weak pull along each ray decides where others do not.
        matrix += across + 1e-6 * np.eye(3)
        vector += across @ start + 1e-6 * (start + share * (end - start))
    return _point(np.linalg.solve(matrix, vector))


def _point(vector: Any) -> Point:
    """Return a vector (3,) as numbers that can be compared and hashed."""
    x, y, z = (float(value) for value in vector)
    return (x, y, z)
