"""The paper's coarse alignment."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from raylift.geometry import Camera, VolumeGrid
from raylift.lifting.coordinates import frontal_angle, turned_to
from raylift.lifting.lift import Repeat
from raylift.plugins.extras import import_extra


class CoarseLift(Repeat):
    """The paper's coarse alignment: each image is repeated as if frontal, then rotated by its view's angle.

    The rotation about the cranio-caudal axis is Kornia's, trilinear, so corners of the cube are empty in oblique
    views. The arguments are those of `Lift`.
    """

    def __init__(self, grid: VolumeGrid, cameras: Sequence[Camera], isocentre: Sequence[float]) -> None:
        frontal = [turned_to(camera, frontal_angle(camera.view), isocentre) for camera in cameras]
        super().__init__(grid, frontal, isocentre)
        self.rotations = [camera.view.angle - frontal_angle(camera.view) for camera in cameras]

    def forward(self, xrays: Tensor, patients: Sequence[int] | None = None) -> Tensor:
        """Return the lifted volume as `Lift.forward` does."""
        rotate3d = import_extra("kornia.geometry.transform", "paper", "the coarse lift").rotate3d

        lifted = super().forward(xrays)
        zero = torch.zeros(len(lifted), device=lifted.device)
        rotated = [
            # A rotation vector along Kornia's third axis, here z, turns x towards y, as a view's angle does.
            rotate3d(channel, zero, zero, torch.full_like(zero, degrees), align_corners=True)
            for channel, degrees in zip(lifted.split(1, 1), self.rotations, strict=True)
        ]
        return torch.cat(rotated, 1)
