"""Several networks that were trained alike and answer together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """The mean of what networks make of one input: what each of them got from chance in its training cancels.

    Where a `LiftedNetwork` asks more than once, all see the volume that is their mean.

    Args:
        members: networks of the same channels, at least one.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, lifted: Tensor) -> Tensor:
        """(B, channels, D, H, W) → (B, out channels, D, H, W), z, y, x, in the units of the members' outputs."""
        return torch.stack([member(lifted) for member in self.members]).mean(0)
