"""The contract of objectives: what they are made from, what they are given, and what they answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from raylift.config.recipe import ObjectiveConfig
from raylift.geometry import Geometry, View, VolumeGrid


@dataclass(frozen=True)
class GeneratorOutput:
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

    def detach(self) -> GeneratorOutput:
        """The same without the way to g."""
        return replace(self, fake=self.fake.detach(), class_maps=None, spread=None)


@dataclass(frozen=True)
class Setting:
    """What an objective may need to know of its training.

    Args:
        grid: of the volumes, centred on the isocentre.
        geometry: X-ray unit.
        views: of the recipe.
        seed: of the recipe.
    """

    grid: VolumeGrid
    geometry: Geometry
    views: tuple[View, ...]
    seed: int


class Objective(nn.Module, ABC):
    """What training minimises.

    A training step is `g_updates` updates of g, each on a fresh minibatch, then `d_updates` of d on fresh minibatches,
    or on that of g's last update where `d_shares` it.

    Args:
        config: the recipe's block `objective`.
        setting: what else there is to know.
    """

    config_class: ClassVar[type[ObjectiveConfig]]  # which keys a recipe may say
    config: Any  # of that class
    d: nn.Module | None  # trained against g
    g_updates: int = 1
    d_updates: int = 0
    d_shares: bool = False

    def __init__(self, config: ObjectiveConfig, setting: Setting) -> None:
        super().__init__()
        self.config, self.setting, self.d = config, setting, None

    @abstractmethod
    def generator_terms(self, output: GeneratorOutput) -> dict[str, Tensor]:
        """Return the terms of g's loss, scalars by name, already weighted; their sum is minimised."""

    def discriminator_loss(self, output: GeneratorOutput) -> Tensor | None:
        """Return d's loss, a scalar, for volumes that carry no gradient to g; None where there is no d."""
        return None
