"""X-rays as images, not lifted, for networks that go from 2D to 3D by themselves."""

from __future__ import annotations

import numpy as np

from raylift.geometry import Camera
from raylift.lifting.coordinates import depth_axis
from raylift.lifting.lift import Transpose


class ImageLift(Transpose):
    """No lift: each X-ray as an image in the volume's frame, for networks that go from 2D to 3D by themselves.

    A frontal image becomes (z, x), a lateral one (z, y), each sampled where the rays through the cube's middle plane
    meet the detector. `forward` returns (B, N, D, W) of a cube.
    """

    def projected_pixels(self, camera: Camera) -> np.ndarray:
        """Return the coordinates of `coordinates.transpose`, which are constant along the depth, without that axis."""
        pixels: np.ndarray = super().projected_pixels(camera).take(0, axis=depth_axis(camera.view))
        return pixels
