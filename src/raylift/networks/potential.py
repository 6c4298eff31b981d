"""The potential d: a residual 3D network that prices volumes."""

from __future__ import annotations

import itertools

from monai.networks.blocks import ResidualUnit
from torch import Tensor, nn


class Potential(nn.Module):
    """Volume (B, 1, D, H, W) → one price per volume (B,).

    Four strided residual units, no normalisation, so that a price depends on its own volume alone.

    Args:
        features: channels after the first unit; they double with each.
    """

    def __init__(self, features: int = 16) -> None:
        super().__init__()
        widths = [1] + [features * 2**k for k in range(4)]
        act = ("leakyrelu", {"negative_slope": 0.2})
        self.units = nn.Sequential(
            *(ResidualUnit(3, a, b, strides=2, norm=None, act=act) for a, b in itertools.pairwise(widths))
        )
        self.head = nn.Linear(widths[-1], 1)

    def forward(self, volume: Tensor) -> Tensor:
        """(B, 1, D, H, W) in [0, 1] → (B,)."""
        out: Tensor = self.head(self.units(volume).mean((2, 3, 4)))
        return out[:, 0]
