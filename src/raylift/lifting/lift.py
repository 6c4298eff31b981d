"""Lifting views to the channels of a 3D volume: the step between 2D X-rays and a 3D→3D network.

A lift decides, for each voxel and each view, from which point of the X-ray the voxel takes its value.
`repeat` is equation 1 of the paper, which assumes parallel rays; `backproject` follows each ray. `transpose`, `coarse`
and the two kinds of noise are the variants that the paper compares; `image` keeps the X-rays as images, for networks
that go from 2D to 3D by themselves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from raylift.geometry import Camera, VolumeGrid
from raylift.lifting.coordinates import backproject, repeat, transpose


class Lift(torch.nn.Module, ABC):
    """Lift X-rays of N views to N channels of a volume on `grid`, by bilinear sampling of each X-ray.

    A subclass defines by `projected_pixels` from which point of the X-ray each voxel takes its value.

    Args:
        grid: of the volume.
        cameras: one per X-ray, all with the rows and columns of the X-rays passed to `forward`.
        isocentre: world point (x, y, z) in mm that the paper's lifts repeat images around.
    """

    positions: Tensor
    visible: Tensor

    def __init__(
        self,
        grid: VolumeGrid,
        cameras: Sequence[Camera],
        isocentre: Sequence[float],
    ) -> None:
        super().__init__()
        self.grid, self.cameras = grid, tuple(cameras)
        self.isocentre: Sequence[float] = isocentre
        sampled = np.stack([self.projected_pixels(camera) for camera in cameras])
        # From (row, column) in pixels to grid_sample's (x, y) in [-1, 1], with align_corners=False.
        self.pixels = np.array([cameras[0].columns, cameras[0].rows])
        positions = (sampled[..., ::-1] + 0.5) * (2 / self.pixels) - 1
        self.shape = positions.shape[1:-1]
        flat = positions.reshape(len(cameras), -1, self.shape[-1], 2)
        self.register_buffer("positions", torch.from_numpy(flat.astype(np.float32)), persistent=False)
        # (N, z, y, x): whether each voxel's ray meets the detector, within the centres of the outermost pixels.
        outermost = torch.from_numpy(1 - 1 / self.pixels).float()
        visible = (self.positions.abs() <= outermost).all(-1).unflatten(1, self.shape[:-1])
        self.register_buffer("visible", visible, persistent=False)

    @abstractmethod
    def projected_pixels(self, camera: Camera) -> np.ndarray:
        """Return the continuous (row, column) from which each voxel takes its value, (..., rows, columns, 2)."""

    def forward(self, xrays: Tensor, patients: Sequence[int] | None = None) -> Tensor:
        """Lift X-rays to a volume.

        Args:
            xrays: (B, N, rows, columns).
            patients: in training, the number of each patient, which seeds the noise of noise lifts; None in
                reconstruction.

        Returns:
            Volume (B, N, D, H, W) = (B, N, z, y, x); 0 where a voxel's ray misses the detector.

        Raises:
            ValueError: the X-rays do not fit the cameras.
        """
        columns, rows = self.pixels
        if tuple(xrays.shape[1:]) != (len(self.positions), rows, columns):
            raise ValueError(
                f"X-rays {tuple(xrays.shape)} are not of {len(self.positions)} × {rows} × {columns} pixels"
            )
        # Views are the batch and volumes the channels, since a view's positions are the same for all volumes.
        sampled = F.grid_sample(xrays.float().transpose(0, 1), self.positions, align_corners=False)
        lifted: Tensor = sampled.transpose(0, 1).unflatten(2, self.shape[:-1])
        return lifted


class Repeat(Lift):
    """Equation 1 of the paper: each X-ray is repeated along its view's direction."""

    def projected_pixels(self, camera: Camera) -> np.ndarray:
        """Return the coordinates of `raylift.lifting.coordinates.repeat`."""
        return repeat(self.grid, camera, self.isocentre)


class BackProject(Lift):
    """The exact form of repetition: each voxel samples an X-ray where its own ray meets the detector."""

    def projected_pixels(self, camera: Camera) -> np.ndarray:
        """Return the coordinates of `raylift.lifting.coordinates.backproject`."""
        return backproject(self.grid, camera)


class Transpose(Lift):
    """The paper's repetition without alignment, in which oblique views are repeated as if they were frontal."""

    def projected_pixels(self, camera: Camera) -> np.ndarray:
        """Return the coordinates of `raylift.lifting.coordinates.transpose`."""
        return transpose(self.grid, camera, self.isocentre)
