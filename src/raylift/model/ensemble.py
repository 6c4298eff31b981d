"""An ensemble of networks that were trained alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """The mean of several networks' outputs, in which the random errors of single trainings cancel.

    Where a `LiftedNetwork` makes several passes, all members see the mean volume of the pass before.

    Args:
        members: networks of the same channels, at least one.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, lifted: Tensor) -> Tensor:
        """Return the mean of the members' outputs.

        Args:
            lifted: (B, channels, D, H, W), axes z, y, x.

        Returns:
            (B, out channels, D, H, W), in the units of the members' outputs.
        """
        return torch.stack([member(lifted) for member in self.members]).mean(0)
