"""What an objective is given."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from raylift.geometry import Geometry, View


@dataclass(frozen=True)
class Translation:
    """A batch of pairs, and what g made of them.

    Args:
        fake: g's volumes (B, 1, D, H, W), any real values.
        real: true volumes (B, 1, D, H, W) in [0, 1]; number k belongs to fake number k.
        lifted: what g was given: lifted views (B, N, D, H, W), or images (B, N, D, W).
        views: of the X-rays.
        geometry: the unit that took them.
        class_maps: (B, N, 3, D, W) in [0, 1], where g predicts them.
        spread: how far g expects each voxel to be off, (B, 1, D, H, W), where it says so.
    """

    fake: Tensor
    real: Tensor
    lifted: Tensor
    views: tuple[View, ...]
    geometry: Geometry
    class_maps: Tensor | None = None
    spread: Tensor | None = None

    def detach(self) -> Translation:
        """The same without the way to g."""
        return replace(self, fake=self.fake.detach(), class_maps=None, spread=None)
