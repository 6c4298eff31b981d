"""A set of X-rays with the views, the geometry and the isocentre that they were taken with."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from raylift.geometry import Camera, Geometry, Point, View
from raylift.images.tone_curve import ToneCurve


@dataclass(frozen=True)
class XraySet:
    """X-rays of one patient.

    Args:
        images: line integrals (N, rows, columns), float32; row 0 is superior.
        views: one per image.
        geometry: of the X-ray unit; its `pixels` are those of the images. With cameras of their own, that of the
            first, about.
        isocentre: world point (x, y, z) in mm; None if it is unknown, as for a photographed radiograph.
        notes: remarks for the user about the images, one sentence each.
        warnings: reasons not to trust what is computed from them, one sentence each.
        tones: the tone curve by which each image was made from a picture, None where it is no picture; () where no
            image is one.
        own_cameras: the camera of each image, where it is not that of its view in the geometry; else ().
    """

    images: np.ndarray
    views: tuple[View, ...]
    geometry: Geometry
    isocentre: Point | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    tones: tuple[ToneCurve | None, ...] = ()
    own_cameras: tuple[Camera, ...] = ()

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """The cameras of the images, around the world's origin where the isocentre is not known."""
        return tuple(self.camera(number, view) for number, view in enumerate(self.views))

    def camera(self, number: int, view: View) -> Camera:
        """Return the camera of an image if this were its view; of a camera of its own, turn and shift alone count."""
        centre = self.isocentre or (0.0, 0.0, 0.0)
        if not self.own_cameras:
            return self.geometry.camera(view, centre)
        camera = self.own_cameras[number]
        return camera.moved(view.turn, view.shift, centre) if any((*view.turn, *view.shift)) else camera

    @property
    def centred_cameras(self) -> tuple[Camera, ...]:
        """The cameras in a frame whose origin is the isocentre."""
        if not self.own_cameras:
            return self.geometry.cameras(self.views)
        x, y, z = self.isocentre or (0.0, 0.0, 0.0)
        return tuple(camera.moved((0.0, 0.0, 0.0), (-x, -y, -z), (0.0, 0.0, 0.0)) for camera in self.cameras)

    def with_images(self, images: np.ndarray) -> XraySet:
        """Return the X-rays with images of other pixels of the same detectors, (N, pixels, pixels)."""
        pixels = images.shape[1]
        cameras = tuple(camera.with_pixels(pixels, pixels) for camera in self.own_cameras)
        return replace(self, images=images, geometry=self.geometry.with_pixels(pixels), own_cameras=cameras)

    def __post_init__(self) -> None:
        pixels = self.geometry.pixels
        if self.images.shape != (len(self.views), pixels, pixels):
            raise ValueError(f"X-rays {self.images.shape} are not {len(self.views)} views of {pixels}×{pixels} pixels")
        if any((camera.rows, camera.columns) != (pixels, pixels) for camera in self.own_cameras):
            raise ValueError(f"the cameras of X-rays need their {pixels}×{pixels} pixels")


def describe_geometry(geometry: Geometry) -> str:
    """Return a geometry in words, like "SAD 1600 and SDD 1800 mm, detector 430 mm"."""
    beam = "a parallel beam" if geometry.parallel else f"SAD {geometry.sad:g} and SDD {geometry.sdd:g} mm"
    return f"{beam}, detector {geometry.detector_mm:g} mm"
