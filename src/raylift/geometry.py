"""Where source, detector and voxels are.

World coordinates are DICOM patient coordinates (LPS) in millimetres: +x is the patient's left, +y posterior,
+z superior. A view's angle θ turns the source from the patient's front (θ = 0°, AP) towards the patient's left
(θ = 90°). Detector columns run along u = (cos θ, sin θ, 0), rows downwards along v = (0, 0, -1), so row 0 is
superior and an AP image shows the patient's left on its right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Point = tuple[float, float, float]
Direction = tuple[float, float, float, float, float, float, float, float, float]

IDENTITY: Direction = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
# What is plausible of a description in a file.
FARTHEST = 1e5  # mm, or degrees
MOST_VOXELS = 2**31
MOST_PIXELS = 2**14  # along a detector's edge


@dataclass(frozen=True)
class VolumeGrid:
    """The positions of a volume's voxels in the patient.

    Args:
        shape: number of voxels along the array axes (z, y, x).
        spacing: distance of voxel centres in mm along the index axes (x, y, z), as ITK orders it.
        origin: world position (x, y, z) in mm of the centre of voxel (0, 0, 0).
        direction: 3×3 row-major cosines; column j is the world direction of index axis j in (x, y, z).
    """

    shape: tuple[int, int, int]
    spacing: Point
    origin: Point
    direction: Direction = IDENTITY

    @classmethod
    def cube(cls, centre: Sequence[float], edge: float, voxels: int) -> VolumeGrid:
        """An axis-aligned cube of `edge` mm with `voxels` per edge around the world point `centre`."""
        return cls.box(centre, (voxels,) * 3, edge / voxels)

    @classmethod
    def box(cls, centre: Sequence[float], shape: tuple[int, int, int], spacing: float) -> VolumeGrid:
        """An axis-aligned box of `shape` (z, y, x) isotropic voxels of `spacing` mm around `centre`."""
        x, y, z = (float(c) - spacing * (n - 1) / 2 for c, n in zip(centre, shape[::-1], strict=True))
        return cls(shape, (spacing,) * 3, (x, y, z))

    def part(self, low: Sequence[int], high: Sequence[int]) -> VolumeGrid:
        """The voxels with indices (x, y, z) from `low` to before `high`."""
        x, y, z = (self.index_to_world @ [*low, 1.0])[:3]
        width, height, depth = (int(end) - int(start) for start, end in zip(low, high, strict=True))
        return VolumeGrid((depth, height, width), self.spacing, (float(x), float(y), float(z)), self.direction)

    @property
    def index_to_world(self) -> np.ndarray:
        """Affine matrix (4, 4) from a voxel index (x, y, z, 1) to its world position in mm."""
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(self.direction, (3, 3)) * np.asarray(self.spacing)
        affine[:3, 3] = self.origin
        return affine

    @property
    def world_to_index(self) -> np.ndarray:
        """Affine matrix (4, 4) from a world position in mm to a continuous voxel index (x, y, z, 1)."""
        return np.linalg.inv(self.index_to_world)

    @property
    def centre(self) -> Point:
        """World position of the middle of the grid in mm."""
        middle = [(n - 1) / 2 for n in self.shape[::-1]] + [1.0]
        x, y, z = (self.index_to_world @ middle)[:3]
        return (float(x), float(y), float(z))

    @property
    def corners(self) -> np.ndarray:
        """World positions (8, 3) in mm of the outer corners of the corner voxels."""
        ends = [(-0.5, n - 0.5) for n in self.shape[::-1]]
        index = np.stack(np.meshgrid(*ends, indexing="ij"), -1).reshape(-1, 3)
        return index @ self.index_to_world[:3, :3].T + self.index_to_world[:3, 3]

    def points(self) -> np.ndarray:
        """World positions (z, y, x, 3) in mm of all voxel centres, float64."""
        z, y, x = (np.arange(n, dtype=np.float64) for n in self.shape)
        index = np.stack(np.meshgrid(z, y, x, indexing="ij")[::-1], -1)
        return index @ self.index_to_world[:3, :3].T + self.index_to_world[:3, 3]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready description; `from_dict` reads it back."""
        return {
            "shape_zyx": list(self.shape),
            "spacing_xyz_mm": list(self.spacing),
            "origin_lps_mm": list(self.origin),
            "direction": list(self.direction),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> VolumeGrid:
        """The grid that `to_dict` described. Raises KeyError or ValueError if an entry is missing or malformed."""
        z, y, x = (_whole(n, 1, MOST_VOXELS) for n in _list(data["shape_zyx"], 3))
        sx, sy, sz = (_number(s, 1e-3, FARTHEST) for s in _list(data["spacing_xyz_mm"], 3))
        ox, oy, oz = (_number(o, -FARTHEST, FARTHEST) for o in _list(data["origin_lps_mm"], 3))
        a, b, c, d, e, f, g, h, i = (_number(n, -2, 2) for n in _list(data.get("direction", IDENTITY), 9))
        if z * y * x > MOST_VOXELS:
            raise ValueError(f"{z} × {y} × {x} voxels are none of a scan")
        axes = np.reshape([a, b, c, d, e, f, g, h, i], (3, 3))
        if not np.allclose(axes.T @ axes, np.eye(3), atol=1e-3):  # cosines may be rounded to three digits
            raise ValueError("a grid's direction needs perpendicular axes of length 1")
        return cls((z, y, x), (sx, sy, sz), (ox, oy, oz), (a, b, c, d, e, f, g, h, i))


# Names radiographers use. A lateral is named, as in DICOM, for the side at the detector, and PA and left lateral
# are hung so that they read like AP and right lateral: the patient's left on the right, the front on the left.
NAMED_VIEWS: dict[str, tuple[float, bool]] = {
    "ap": (0.0, False),
    "lateral-right": (90.0, False),
    "pa": (180.0, True),
    "lateral-left": (270.0, True),
}


@dataclass(frozen=True)
class View:
    """One direction of looking.

    Args:
        angle: position of the source in degrees; 0 = in front of the patient, 90 = at the patient's left.
        mirrored: the image's columns run against u, as when a PA radiograph is hung for reading.
        turn: rotation vector (x, y, z) in degrees by which the unit, source and detector, is turned about the isocentre
            from where the angle says; right-handed about the world's axes.
        shift: (x, y, z) in mm by which the unit is moved after that. A patient who moves does the inverse.
    """

    angle: float
    mirrored: bool = False
    turn: Point = (0.0, 0.0, 0.0)
    shift: Point = (0.0, 0.0, 0.0)

    @classmethod
    def parse(cls, text: str | float | View) -> View:
        """A view from an angle in degrees ("90", 45.0) or a name ("ap", "pa", "lateral-left", "lateral-right").

        Raises:
            ValueError: neither a number from −100,000 to 100,000 nor a known name.
        """
        if isinstance(text, View):
            return text
        name = str(text).strip().lower()
        if name in NAMED_VIEWS:
            return cls(*NAMED_VIEWS[name])
        try:
            angle = float(name)
        except ValueError:
            angle = math.nan
        if not abs(angle) <= FARTHEST:
            raise ValueError(f"'{text}' is no view: give an angle in degrees or one of {', '.join(NAMED_VIEWS)}")
        return cls(angle % 360)

    @property
    def name(self) -> str:
        """The radiographer's name where there is one, else the angle in degrees."""
        named = {view: name for name, view in NAMED_VIEWS.items()}
        return named.get((self.angle, self.mirrored), f"{self.angle:g}" + ("m" if self.mirrored else ""))

    @property
    def lateral(self) -> bool:
        """Nearer a lateral than a frontal view; 45° are lateral."""
        return abs(math.sin(math.radians(self.angle))) > 0.7

    @property
    def hung(self) -> View:
        """The view of this angle whose columns run to the patient's left, or to the back in a lateral."""
        plain = View(self.angle)
        return plain if plain.u[1 if self.lateral else 0] > 0 else View(self.angle, mirrored=True)

    @property
    def opposite(self) -> View:
        """The view from the other side, hung to read alike, so that columns keep their direction in the patient."""
        return replace(self, angle=(self.angle + 180) % 360, mirrored=not self.mirrored)

    @property
    def towards_source(self) -> np.ndarray:
        """Unit vector (3,) from the detector's middle to the source."""
        theta = math.radians(self.angle)
        return self._turned(math.sin(theta), -math.cos(theta), 0.0)

    @property
    def u(self) -> np.ndarray:
        """Unit vector (3,) along increasing detector columns."""
        theta = math.radians(self.angle)
        return self._turned(math.cos(theta), math.sin(theta), 0.0) * (-1.0 if self.mirrored else 1.0)

    @property
    def v(self) -> np.ndarray:
        """Unit vector (3,) along increasing detector rows, towards the feet."""
        return self._turned(0.0, 0.0, -1.0)

    def _turned(self, x: float, y: float, z: float) -> np.ndarray:
        """A vector turned by `turn` (Rodrigues' formula)."""
        vector, turn = np.array([x, y, z]), np.radians(self.turn)
        angle = float(np.linalg.norm(turn))
        if angle == 0:
            return vector
        axis = turn / angle
        along = axis * (axis @ vector)
        turned: np.ndarray = along + (vector - along) * math.cos(angle) + np.cross(axis, vector) * math.sin(angle)
        return turned

    def centre(self, isocentre: Sequence[float]) -> np.ndarray:
        """World point (3,) in mm that source and detector's middle lie about: the isocentre, unless shifted."""
        return np.asarray(isocentre, float) + self.shift

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready description; `from_dict` reads it back."""
        plain: dict[str, Any] = {"angle": self.angle, "mirrored": self.mirrored}
        if not any((*self.turn, *self.shift)):
            return plain
        return {**plain, "turn_xyz_deg": list(self.turn), "shift_xyz_mm": list(self.shift)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> View:
        """The view that `to_dict` described. Raises KeyError or ValueError if it is malformed."""
        angle = _number(data["angle"], -FARTHEST, FARTHEST)
        a, b, c = (_number(n, -360, 360) for n in _list(data.get("turn_xyz_deg", (0, 0, 0)), 3))
        d, e, f = (_number(n, -FARTHEST, FARTHEST) for n in _list(data.get("shift_xyz_mm", (0, 0, 0)), 3))
        return cls(angle % 360, _truth(data["mirrored"]), (a, b, c), (d, e, f))


@dataclass(frozen=True)
class Geometry:
    """An X-ray unit: a point source and a flat square detector on opposite sides of the isocentre.

    Args:
        sad: distance from source to axis (isocentre) in mm.
        sdd: distance from source to detector in mm.
        detector_mm: edge of the square detector in mm.
        pixels: detector rows, and columns.
        parallel: all rays run along the view's axis; the detector then sees `detector_mm` at the isocentre.
    """

    sad: float
    sdd: float
    detector_mm: float
    pixels: int = 256
    parallel: bool = False

    def __post_init__(self) -> None:
        if not (0 < self.sad < self.sdd < math.inf and 0 < self.detector_mm < math.inf and self.pixels > 0):
            raise ValueError("a geometry needs 0 < sad < sdd, and a detector of positive size and pixels, all finite")

    @classmethod
    def preset(cls, name: str, pixels: int = 256) -> Geometry:
        """The named geometry (see `PRESETS`) with the given number of detector pixels per edge."""
        if name not in PRESETS:
            raise ValueError(f"'{name}' is no geometry: choose one of {', '.join(PRESETS)}")
        return replace(PRESETS[name], pixels=pixels)

    @property
    def pitch(self) -> float:
        """Distance of pixel centres on the detector in mm."""
        return self.detector_mm / self.pixels

    def with_pixels(self, pixels: int) -> Geometry:
        """The same unit with its detector divided into `pixels` × `pixels`."""
        return replace(self, pixels=pixels)

    def source(self, view: View, isocentre: Sequence[float]) -> np.ndarray:
        """World position (3,) in mm of the source; of the ray plane's middle for a parallel geometry."""
        return view.centre(isocentre) + self.sad * view.towards_source

    def pixel_positions(self, view: View, isocentre: Sequence[float]) -> np.ndarray:
        """World positions (rows, columns, 3) in mm of the detector's pixel centres."""
        offset = (np.arange(self.pixels) - (self.pixels - 1) / 2) * self.pitch
        middle = view.centre(isocentre) - (self.sdd - self.sad) * view.towards_source
        return middle + offset[:, None, None] * view.v + offset[None, :, None] * view.u

    def rays(self, view: View, isocentre: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Start and end, each (rows, columns, 3) in mm, of the ray that meets each pixel."""
        end = self.pixel_positions(view, isocentre)
        if self.parallel:
            return end + self.sdd * view.towards_source, end
        return np.broadcast_to(self.source(view, isocentre), end.shape), end

    def shadow(self, points: np.ndarray, view: View, isocentre: Sequence[float]) -> np.ndarray:
        """Where the rays through world points meet the detector.

        Args:
            points: world positions (..., 3) in mm.

        Returns:
            Continuous pixel coordinates (..., 2) as (row, column); (0, 0) is the centre of the first pixel.
        """
        relative = np.asarray(points, float) - view.centre(isocentre)
        if self.parallel:
            magnification = np.ones(relative.shape[:-1])
        else:
            magnification = self.sdd / (self.sad - relative @ view.towards_source)
        rows = relative @ view.v * magnification / self.pitch + (self.pixels - 1) / 2
        columns = relative @ view.u * magnification / self.pitch + (self.pixels - 1) / 2
        return np.stack([rows, columns], -1)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready description; `from_dict` reads it back."""
        return {
            "source_axis_mm": self.sad,
            "source_detector_mm": self.sdd,
            "detector_mm": self.detector_mm,
            "pixels": self.pixels,
            "parallel": self.parallel,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Geometry:
        """The geometry that `to_dict` described. Raises KeyError or ValueError if it is malformed."""
        return cls(
            _number(data["source_axis_mm"], 1, FARTHEST),
            _number(data["source_detector_mm"], 1, FARTHEST),
            _number(data["detector_mm"], 1, FARTHEST),
            _whole(data["pixels"], 1, MOST_PIXELS),
            _truth(data.get("parallel", False)),
        )


def _list(value: Any, length: int) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)) or len(value) != length:
        raise ValueError(f"{str(value)[:60]} is no list of {length}")
    return value


def _number(value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{str(value)[:60]!r} is no number from {low:g} to {high:g}")
    return float(value)


def _whole(value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{str(value)[:60]!r} is no whole number from {low} to {high}")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{str(value)[:60]!r} is neither true nor false")
    return value


PRESETS: dict[str, Geometry] = {
    "chest-stand": Geometry(sad=1600.0, sdd=1800.0, detector_mm=430.0),
    "x2ct": Geometry(sad=541.0, sdd=949.0, detector_mm=500.0),
    "parallel": Geometry(sad=1600.0, sdd=1800.0, detector_mm=400.0, parallel=True),
}
