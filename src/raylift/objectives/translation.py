"""What an objective is given."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

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
