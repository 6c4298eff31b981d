"""From views to the channels of a 3D volume: the step between 2D X-rays and a 3D→3D network.

A lift answers one question for each voxel and each view: which point of the X-ray belongs to this voxel?
`repeat` is equation 1 of the paper, which takes the rays to be parallel; `backproject` follows each ray.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from raylift.geometry import Geometry, View, VolumeGrid

# (grid, geometry, view, isocentre) -> (row, column) of the pixel that each voxel takes its value from.
Shadows = Callable[[VolumeGrid, Geometry, View, Sequence[float]], np.ndarray]


def repeat(grid: VolumeGrid, geometry: Geometry, view: View, isocentre: Sequence[float]) -> np.ndarray:
    """Equation 1: the X-ray is repeated along the direction in which its view looks.

    A frontal image (z, x) is repeated along y, a lateral image (z, y) along x, an oblique one along its own axis;
    in all of them the cranio-caudal axis stays z. The image is taken at its size at the isocentre, and the beam
    as parallel.

    Returns:
        Continuous pixel coordinates (z, y, x, 2) as (row, column).
    """
    seen = geometry.detector_mm if geometry.parallel else geometry.detector_mm * geometry.sad / geometry.sdd
    return replace(geometry, detector_mm=seen, parallel=True).shadow(grid.points(), view, isocentre)


def backproject(grid: VolumeGrid, geometry: Geometry, view: View, isocentre: Sequence[float]) -> np.ndarray:
    """The exact form of "repeat": each voxel samples the X-ray where its own ray meets the detector.

    Returns:
        Continuous pixel coordinates (z, y, x, 2) as (row, column).
    """
    return geometry.shadow(grid.points(), view, isocentre)


LIFTS: dict[str, Shadows] = {"repeat": repeat, "backproject": backproject}


class Lift(torch.nn.Module):
    """X-rays of N views to N channels of a volume on `grid`, by bilinear sampling of each X-ray.

    Args:
        name: key of `LIFTS`.
        grid: the volume to fill.
        geometry: X-ray unit; its `pixels` are those of the X-rays given to `forward`.
        views: one per X-ray.
        isocentre: world point (x, y, z) in mm.
    """

    positions: Tensor

    def __init__(
        self,
        name: str,
        grid: VolumeGrid,
        geometry: Geometry,
        views: Sequence[View],
        isocentre: Sequence[float],
    ) -> None:
        super().__init__()
        self.grid, self.geometry = grid, geometry
        shadows = np.stack([LIFTS[name](grid, geometry, view, isocentre) for view in views])
        # (row, column) in pixels to grid_sample's (x, y) in [-1, 1] (align_corners=False).
        positions = (shadows[..., ::-1] + 0.5) * (2 / geometry.pixels) - 1
        flat = positions.reshape(len(views), -1, grid.shape[2], 2)
        self.register_buffer("positions", torch.from_numpy(flat.astype(np.float32)), persistent=False)

    def forward(self, xrays: Tensor) -> Tensor:
        """Lift.

        Args:
            xrays: (B, N, rows, columns).

        Returns:
            Volume (B, N, D, H, W) = (B, N, z, y, x); 0 where a voxel's ray misses the detector.
        """
        pixels = self.geometry.pixels
        if tuple(xrays.shape[1:]) != (len(self.positions), pixels, pixels):
            raise ValueError(f"X-rays {tuple(xrays.shape)} do not fit {len(self.positions)} views of {pixels} pixels")
        # Views are the batch and volumes the channels, since a view's positions are the same for all volumes.
        lifted = F.grid_sample(xrays.float().transpose(0, 1), self.positions, align_corners=False)
        return lifted.transpose(0, 1).unflatten(2, self.grid.shape[:2])
