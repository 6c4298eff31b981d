"""Noise instead of repeated images, a variant with which the paper compares repetition."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from raylift.lifting.coordinates import depth_axis
from raylift.lifting.lift import Transpose


class NoiseLift(Transpose):
    """Noise instead of repetition: the image fills the first slice along its axis, one image of N(0, 1) all others.

    This is what the published program does; the paper's text mentions noise z only. In reconstruction the noise is
    seeded by the X-ray, so that the same X-rays always give the same volume.
    """

    fresh: ClassVar[bool]  # in training, noise is drawn anew for each batch; else it is fixed for each patient

    def forward(self, xrays: Tensor, patients: Sequence[int] | None = None) -> Tensor:
        """Return the lifted volume as `Lift.forward` does."""
        lifted = super().forward(xrays)
        if self.fresh and patients is not None:
            noise = torch.randn(len(xrays), len(self.cameras), *self.grid.shape[1:])
        else:
            seeds = patients or [zlib.crc32(images.detach().cpu().numpy().tobytes()) for images in xrays]
            noise = torch.stack([self._noise(seed) for seed in seeds])
        for channel, camera in enumerate(self.cameras):
            axis = depth_axis(camera.view) + 1
            behind = lifted[:, channel].narrow(axis, 1, lifted[:, channel].shape[axis] - 1)
            behind.copy_(noise[:, channel].unsqueeze(axis).expand_as(behind))
        return lifted

    def _noise(self, seed: int) -> Tensor:
        """Return noise (N, D, W) for a cube (D, W, W), which depends on the seed and the views only."""
        generators = [torch.Generator().manual_seed(1000 * seed + round(c.view.angle)) for c in self.cameras]
        return torch.stack([torch.randn(self.grid.shape[1:], generator=generator) for generator in generators])


class FixedNoise(NoiseLift):
    """Noise that is fixed for each patient."""

    fresh = False


class FreshNoise(NoiseLift):
    """Noise that is drawn anew for each batch."""

    fresh = True
