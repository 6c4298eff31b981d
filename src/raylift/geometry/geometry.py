"""The geometry of an X-ray unit whose source and detector turn around an isocentre: one way to write cameras."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from raylift.geometry.camera import MOST_PIXELS, Beam, Camera
from raylift.geometry.plausible import FARTHEST, plain_boolean, plain_integer, plain_number
from raylift.geometry.presets import PRESET_PARAMETERS
from raylift.geometry.view import View


@dataclass(frozen=True)
class Geometry:
    """The geometry of an X-ray unit: a point source and a flat square detector on opposite sides of the isocentre.

    Args:
        sad: distance from source to axis (isocentre) in mm.
        sdd: distance from source to detector in mm.
        detector_mm: edge of the square detector in mm.
        pixels: number of detector rows, and of columns.
        parallel: all rays run along the view's axis, so the detector covers `detector_mm` at the isocentre too.
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
        """Return the named geometry of `PRESETS` with `pixels` × `pixels` detector pixels.

        Raises:
            ValueError: there is no preset of that name.
        """
        if name not in PRESETS:
            raise ValueError(f"'{name}' is no geometry: choose one of {', '.join(PRESETS)}")
        return replace(PRESETS[name], pixels=pixels)

    @property
    def pitch(self) -> float:
        """The distance between pixel centres on the detector in mm."""
        return self.detector_mm / self.pixels

    def with_pixels(self, pixels: int) -> Geometry:
        """Return the same geometry with its detector divided into `pixels` × `pixels`."""
        return replace(self, pixels=pixels)

    def camera(self, view: View, isocentre: Sequence[float]) -> Camera:
        """Return the camera of a view around an isocentre, a world point (x, y, z) in mm."""
        centre = view.centre(isocentre)
        offset = -(self.pixels - 1) / 2 * self.pitch
        corner = centre - (self.sdd - self.sad) * view.towards_source + offset * (view.u + view.v)
        source = corner + self.sdd * view.towards_source if self.parallel else centre + self.sad * view.towards_source
        beam = Beam.PARALLEL if self.parallel else Beam.CONE
        vectors = (source, corner, self.pitch * view.v, self.pitch * view.u)
        (sx, sy, sz), (cx, cy, cz), (rx, ry, rz), (ux, uy, uz) = (vector.tolist() for vector in vectors)
        steps = (rx, ry, rz), (ux, uy, uz)
        return Camera((sx, sy, sz), (cx, cy, cz), *steps, rows=self.pixels, columns=self.pixels, beam=beam)

    def cameras(self, views: Sequence[View], isocentre: Sequence[float] = (0.0, 0.0, 0.0)) -> tuple[Camera, ...]:
        """Return the cameras of views around an isocentre."""
        return tuple(self.camera(view, isocentre) for view in views)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description, which `from_dict` reads back."""
        return {
            "source_axis_mm": self.sad,
            "source_detector_mm": self.sdd,
            "detector_mm": self.detector_mm,
            "pixels": self.pixels,
            "parallel": self.parallel,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Geometry:
        """Return the geometry that `to_dict` described.

        Raises KeyError where an entry is missing, and ValueError where one is malformed.
        """
        return cls(
            plain_number(data["source_axis_mm"], 1, FARTHEST),
            plain_number(data["source_detector_mm"], 1, FARTHEST),
            plain_number(data["detector_mm"], 1, FARTHEST),
            plain_integer(data["pixels"], 1, MOST_PIXELS),
            plain_boolean(data.get("parallel", False)),
        )


PRESETS: dict[str, Geometry] = {name: Geometry(**parameters) for name, parameters in PRESET_PARAMETERS.items()}
