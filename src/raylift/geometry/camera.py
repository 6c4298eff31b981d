"""The geometry of an X-ray unit: the positions of its source and detector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raylift.geometry.plausible import FARTHEST, plain_boolean, plain_integer, plain_number
from raylift.geometry.presets import PRESET_PARAMETERS
from raylift.geometry.view import View

MOST_PIXELS = 2**14  # along a detector's edge, accepted from a file


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

    def source(self, view: View, isocentre: Sequence[float]) -> np.ndarray:
        """Return the source's world position (3,) in mm; of a parallel geometry, the middle of the emitting plane."""
        return view.centre(isocentre) + self.sad * view.towards_source

    def pixel_positions(self, view: View, isocentre: Sequence[float]) -> np.ndarray:
        """Return the world positions (rows, columns, 3) in mm of the detector's pixel centres."""
        offset = (np.arange(self.pixels) - (self.pixels - 1) / 2) * self.pitch
        middle = view.centre(isocentre) - (self.sdd - self.sad) * view.towards_source
        positions: np.ndarray = middle + offset[:, None, None] * view.v + offset[None, :, None] * view.u
        return positions

    def rays(self, view: View, isocentre: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Return the start and the end, each (rows, columns, 3) in mm, of the ray that meets each pixel."""
        end = self.pixel_positions(view, isocentre)
        if self.parallel:
            return end + self.sdd * view.towards_source, end
        return np.broadcast_to(self.source(view, isocentre), end.shape), end

    def project(self, points: np.ndarray, view: View, isocentre: Sequence[float]) -> np.ndarray:
        """Project world points onto the detector.

        Args:
            points: world positions (..., 3) in mm.
            view: direction of the X-ray.
            isocentre: world point (x, y, z) in mm.

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
