"""Adversarial objectives for comparison with the paper's: Wasserstein, and those of X2CT-GAN and CCX-rayNet."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from raylift.config.recipe import WassersteinObjectiveConfig, X2CTObjectiveConfig
from raylift.drr.operator import ProjectionOperator
from raylift.geometry import View
from raylift.images.hounsfield import normalised_to_hu
from raylift.lifting.coordinates import depth_axis
from raylift.lifting.registry import build_lift
from raylift.losses.objective import GeneratorOutput, Objective, Setting
from raylift.networks.ccx import CLASSES
from raylift.networks.layers.expansion import expand
from raylift.networks.patch_discriminator import PatchDiscriminator
from raylift.networks.potential import CompactPotential


class WassersteinObjective(Objective):
    """WGAN with gradient penalty (Gulrajani et al. 2017): d is a critic, and only the L1 term uses the pairs.

    Args:
        config: the recipe's block `objective`.
        setting: further data of the training run.
    """

    config_class = WassersteinObjectiveConfig
    config: WassersteinObjectiveConfig
    d: nn.Module

    def __init__(self, config: WassersteinObjectiveConfig, setting: Setting) -> None:
        super().__init__(config, setting)
        self.d, self.d_updates = CompactPotential(), config.d_updates

    def generator_terms(self, output: GeneratorOutput) -> dict[str, Tensor]:
        """Return −λ_a · d(g(V_cat)), and λ_1 · |g(V_cat) − V|₁ if its weight is not 0."""
        terms = {"adversarial": -self.config.adversarial * self.d(output.fake).mean()}
        if self.config.l1:
            terms["l1"] = self.config.l1 * (output.fake - output.real).abs().mean()
        return terms

    def discriminator_loss(self, output: GeneratorOutput) -> Tensor:
        """Return d(g(V_cat)) − d(V) + λ_p · (|∇d(v)|₂ − 1)² with v at random between a fake and a real volume."""
        fake, real = output.fake, output.real
        share = torch.rand(len(real), 1, 1, 1, 1).to(real)
        between = (share * real + (1 - share) * fake).detach().requires_grad_()
        (slope,) = torch.autograd.grad(self.d(between).sum(), between, create_graph=True)
        penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        loss: Tensor = self.d(fake).mean() - self.d(real).mean() + self.config.gradient_penalty * penalty
        return loss


class X2CTObjective(Objective):
    """The loss of X2CT-GAN (CVPR 2019), and with class maps that of CCX-rayNet (ISBI 2021).

    - adversarial: least squares (Mao et al. 2017) by a 3D PatchGAN conditioned on the X-rays; weight 0 leaves it out,
      as in X2CT-CNN.
    - voxel: mean squared difference of the voxels.
    - projection: mean absolute difference of the means along z, y and x.
    - class_maps: mean absolute difference of the predicted class maps and those of the true volume.

    Args:
        config: the recipe's block `objective`.
        setting: further data of the training run.
    """

    config_class = X2CTObjectiveConfig
    config: X2CTObjectiveConfig
    d_shares = True

    def __init__(self, config: X2CTObjectiveConfig, setting: Setting) -> None:
        super().__init__(config, setting)
        grid, views = setting.grid, setting.views
        self.grid, self.geometry = grid, setting.geometry.with_pixels(grid.shape[0])
        self._image_lift = cache(lambda view: build_lift("image", grid, self.geometry.cameras([view]), (0, 0, 0)))
        self.axes = [depth_axis(view) for view in views]
        self.d = PatchDiscriminator(1 + len(views), config.d_features) if config.adversarial else None
        self.d_updates = int(self.d is not None)

    def generator_terms(self, output: GeneratorOutput) -> dict[str, Tensor]:
        """Return the weighted terms by name.

        Raises:
            TypeError: the class maps have a weight, but the network does not predict them.
        """
        weights, fake, real = self.config, output.fake, output.real
        terms = {"voxel": weights.voxel * (fake - real).square().mean()}
        differences = [(fake.mean(axis) - real.mean(axis)).abs().mean() for axis in (2, 3, 4)]
        terms["projection"] = weights.projection * torch.stack(differences).mean()
        if self.d is not None:
            terms["adversarial"] = weights.adversarial * (self._patches(fake, output) - 1).square().mean()
        if weights.class_maps:
            if output.class_maps is None:
                raise TypeError("this network predicts no class maps: set objective.class_maps=0")
            true_maps = self.class_maps(real, output.views)
            terms["class_maps"] = weights.class_maps * (output.class_maps - true_maps).abs().mean()
        return terms

    def discriminator_loss(self, output: GeneratorOutput) -> Tensor | None:
        """Return ½ (D(V) − 1)² + ½ D(g)², the mean over patches; None without an adversarial term."""
        if self.d is None:
            return None
        on_real, on_fake = self._patches(output.real, output), self._patches(output.fake, output)
        return 0.5 * ((on_real - 1).square().mean() + on_fake.square().mean())

    def _patches(self, volume: Tensor, output: GeneratorOutput) -> Tensor:
        assert self.d is not None
        images = output.lifted.split(1, 1)
        depth = self.grid.shape[0]
        expanded = [expand(image, axis, depth) for image, axis in zip(images, self.axes, strict=True)]
        patches: Tensor = self.d(torch.cat([volume, *expanded], 1))
        return patches

    @torch.no_grad()
    def class_maps(self, real: Tensor, views: tuple[View, ...]) -> Tensor:
        """Compute each ray's path length through lung, soft tissue and bone, as a fraction of the cube's edge.

        Args:
            real: true volumes (B, 1, D, H, W) in [0, 1].
            views: of the X-rays.

        Returns:
            Class maps (B, N, 3, D, W) in the frame of the lift `image`, in [0, 1].
        """
        hu = normalised_to_hu(real[:, 0])
        masks = torch.cat([((hu >= low) & (hu < high)).to(real) for low, high in CLASSES.values()])
        maps = []
        for view in views:
            project = ProjectionOperator(self.grid, self.geometry.cameras([view]))
            images = self._image_lift(view).to(real.device)(project(masks))
            lengths = images[:, 0] / (self.grid.shape[0] * self.grid.spacing[0])
            maps.append(lengths.unflatten(0, (len(CLASSES), -1)).transpose(0, 1))
        return torch.stack(maps, 1).clamp(0, 1)
