"""Noise instead of copies: what the paper compares repetition with."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from raylift.lifting.coordinates import depth_axis
from raylift.lifting.lift import Transpose


class NoiseLift(Transpose):
    """Noise instead of copies: the image fills the first slice of its axis, one image of N(0, 1) all others.

    This is what the published program does; the paper's text speaks of noise z alone. In reconstruction the noise
    follows from the X-ray, so that the same X-rays give the same volume.
    """

    fresh: ClassVar[bool]  # noise is drawn anew for each batch in training; else each patient keeps its own

    def forward(self, xrays: Tensor, patients: Sequence[int] | None = None) -> Tensor:
        """As `Lift.forward`."""
        lifted = super().forward(xrays)
        if self.fresh and patients is not None:
            noise = torch.randn(len(xrays), len(self.views), *self.grid.shape[1:])
        else:
            seeds = patients or [zlib.crc32(images.detach().cpu().numpy().tobytes()) for images in xrays]
            noise = torch.stack([self._noise(seed) for seed in seeds])
        for channel, view in enumerate(self.views):
            axis = depth_axis(view) + 1
            behind = lifted[:, channel].narrow(axis, 1, lifted[:, channel].shape[axis] - 1)
            behind.copy_(noise[:, channel].unsqueeze(axis).expand_as(behind))
        return lifted

    def _noise(self, seed: int) -> Tensor:
        """(N, D, W) of a cube (D, W, W); the same for the same seed and view."""
        generators = [torch.Generator().manual_seed(1000 * seed + round(view.angle)) for view in self.views]
        return torch.stack([torch.randn(self.grid.shape[1:], generator=generator) for generator in generators])


class FixedNoise(NoiseLift):
    """Noise that each patient keeps."""

    fresh = False


class FreshNoise(NoiseLift):
    """Noise that is drawn anew for each batch."""

    fresh = True
