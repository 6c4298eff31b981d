"""The paper's coarse alignment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from raylift.geometry import Geometry, View, VolumeGrid
from raylift.lifting.coordinates import frontal_angle
from raylift.lifting.lift import Repeat
from raylift.plugins.extras import import_extra


class CoarseLift(Repeat):
    """The paper's coarse alignment: each image is repeated as if frontal, then rotated by its view's angle.

    The rotation about the cranio-caudal axis is Kornia's, trilinear, so corners of the cube are empty in oblique
    views. The arguments are those of `Lift`.
    """

    def __init__(self, grid: VolumeGrid, geometry: Geometry, views: Sequence[View], isocentre: Sequence[float]) -> None:
        frontal = [replace(view, angle=frontal_angle(view)) for view in views]
        super().__init__(grid, geometry, frontal, isocentre)
        self.rotations = [view.angle - frontal_angle(view) for view in views]

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
