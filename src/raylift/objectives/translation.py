"""What an objective is given, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor, nn

from raylift.geometry import View


@dataclass(frozen=True)
class Translation:
    """A batch of pairs, and what g made of them.

    Args:
        fake: g's volumes (B, 1, D, H, W), any real values.
        real: true volumes (B, 1, D, H, W) in [0, 1]; number k belongs to fake number k.
        lifted: what g was given: lifted views (B, N, D, H, W), or images (B, N, D, W).
        views: of the X-rays.
        class_maps: (B, N, 3, D, W) in [0, 1], where g predicts them.
    """

    fake: Tensor
    real: Tensor
    lifted: Tensor
    views: tuple[View, ...]
    class_maps: Tensor | None = None

    def detach(self) -> Translation:
        """The same without the way to g."""
        return replace(self, fake=self.fake.detach(), class_maps=None)


class Objective(Protocol):
    """The terms of g's loss by name, already weighted; their sum is minimised.

    d is the network that is trained against g, None where there is none. A training step is `g_updates` updates of g,
    then `d_updates` of d, on fresh minibatches, or on those of g's last update where `d_shares` them.
    """

    d: nn.Module | None
    g_updates: int
    d_updates: int
    d_shares: bool

    def g_terms(self, made: Translation) -> dict[str, Tensor]: ...
    def d_loss(self, made: Translation) -> Tensor: ...
