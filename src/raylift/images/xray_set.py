"""A set of X-rays with the views, the geometry and the isocentre that they were taken with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raylift.geometry import Camera, Geometry, Point, View
from raylift.images.tone_curve import ToneCurve


@dataclass(frozen=True)
class XraySet:
    """X-rays of one patient.

    Args:
        images: line integrals (N, rows, columns), float32; row 0 is superior.
        views: one per image.
        geometry: of the X-ray unit; its `pixels` are those of the images.
        isocentre: world point (x, y, z) in mm; None if it is unknown, as for a photographed radiograph.
        notes: remarks for the user about the images, one sentence each.
        warnings: reasons not to trust what is computed from them, one sentence each.
        tones: the tone curve by which each image was made from a picture, None where it is no picture; () where no
            image is one.
    """

    images: np.ndarray
    views: tuple[View, ...]
    geometry: Geometry
    isocentre: Point | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    tones: tuple[ToneCurve | None, ...] = ()

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """The cameras of the views around the isocentre, or around the world's origin where that is not known."""
        return self.geometry.cameras(self.views, self.isocentre or (0.0, 0.0, 0.0))

    @property
    def centred_cameras(self) -> tuple[Camera, ...]:
        """The cameras in a frame whose origin is the isocentre."""
        return self.geometry.cameras(self.views)

    def __post_init__(self) -> None:
        pixels = self.geometry.pixels
        if self.images.shape != (len(self.views), pixels, pixels):
            raise ValueError(f"X-rays {self.images.shape} are not {len(self.views)} views of {pixels}×{pixels} pixels")


def describe_geometry(geometry: Geometry) -> str:
    """Return a geometry in words, like "SAD 1600 and SDD 1800 mm, detector 430 mm"."""
    beam = "a parallel beam" if geometry.parallel else f"SAD {geometry.sad:g} and SDD {geometry.sdd:g} mm"
    return f"{beam}, detector {geometry.detector_mm:g} mm"
