"""The interface of training objectives: their settings, their input and their output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from raylift.config.recipe import ObjectiveConfig
from raylift.geometry import Geometry, View, VolumeGrid


@dataclass(frozen=True)
class GeneratorOutput:
    """A batch of pairs and g's output for it.

    Args:
        fake: g's volumes (B, 1, D, H, W), any real values.
        real: true volumes (B, 1, D, H, W) in [0, 1]; number k belongs to fake number k.
        lifted: g's input: lifted views (B, N, D, H, W), or images (B, N, D, W).
        views: of the X-rays.
        geometry: of the X-ray unit.
        class_maps: (B, N, 3, D, W) in [0, 1]; None if g does not predict them.
        uncertainty: g's predicted uncertainty of each voxel, (B, 1, D, H, W), positive: the scale of a Laplace
            distribution of the error, in the unit of `fake`; the standard deviation is √2 times as large. None if g
            does not predict it.
    """

    fake: Tensor
    real: Tensor
    lifted: Tensor
    views: tuple[View, ...]
    geometry: Geometry
    class_maps: Tensor | None = None
    uncertainty: Tensor | None = None

    def detach(self) -> GeneratorOutput:
        """Return the same batch without gradients to g, and without class maps and uncertainty."""
        return replace(self, fake=self.fake.detach(), class_maps=None, uncertainty=None)


@dataclass(frozen=True)
class Setting:
    """The data of a training run that an objective may need.

    Args:
        grid: of the volumes, centred on the isocentre.
        geometry: of the X-ray unit.
        views: of the recipe.
        seed: of the recipe.
    """

    grid: VolumeGrid
    geometry: Geometry
    views: tuple[View, ...]
    seed: int


class Objective(nn.Module, ABC):
    """The losses that training minimises.

    A training step is `g_updates` updates of g, each on a new minibatch, then `d_updates` of d, each on a new one,
    or on that of g's last update if `d_shares` is true.

    Args:
        config: the recipe's block `objective`.
        setting: further data of the training run.
    """

    config_class: ClassVar[type[ObjectiveConfig]]  # the model of the block `objective`
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
        """Return the weighted terms of g's loss, scalars by name, whose sum is minimised."""

    def discriminator_loss(self, output: GeneratorOutput) -> Tensor | None:
        """Return d's loss, a scalar, for volumes without gradients to g; None if there is no d."""
        return None
