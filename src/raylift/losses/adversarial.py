"""The adversarial objectives that the paper's is compared with: Wasserstein, and those of X2CT-GAN and CCX-rayNet."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from raylift.config.recipe import WassersteinObjectivePart, X2CTObjectivePart
from raylift.drr import ProjectionOperator
from raylift.geometry import Geometry, View, VolumeGrid
from raylift.images.hounsfield import unit_to_hu
from raylift.lifting.coordinates import depth_axis
from raylift.lifting.registry import build_lift
from raylift.losses.objective import Translation
from raylift.networks.ccx import CLASSES
from raylift.networks.layers.expansion import expand
from raylift.networks.patch_discriminator import PatchDiscriminator
from raylift.networks.potential import CompactPotential


class WassersteinObjective(nn.Module):
    """WGAN with gradient penalty (Gulrajani et al. 2017): d is a critic, and pairs enter by the L1 term alone.

    Args:
        settings: weights of the terms, and updates of d per update of g.
    """

    g_updates, d_shares = 1, False

    def __init__(self, settings: WassersteinObjectivePart) -> None:
        super().__init__()
        self.settings, self.d_updates = settings, settings.d_updates
        self.d = CompactPotential()

    def g_terms(self, made: Translation) -> dict[str, Tensor]:
        """−λ_a · d(g(V_cat)), and λ_1 · |g(V_cat) − V|₁."""
        terms = {"adversarial": -self.settings.adversarial * self.d(made.fake).mean()}
        if self.settings.l1:
            terms["l1"] = self.settings.l1 * (made.fake - made.real).abs().mean()
        return terms

    def d_loss(self, made: Translation) -> Tensor:
        """d(g(V_cat)) − d(V) + λ_p · (|∇d(v)|₂ − 1)², v at random between a fake and a real volume."""
        fake, real = made.fake, made.real
        share = torch.rand(len(real), 1, 1, 1, 1).to(real)
        between = (share * real + (1 - share) * fake).detach().requires_grad_()
        (slope,) = torch.autograd.grad(self.d(between).sum(), between, create_graph=True)
        penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        return self.d(fake).mean() - self.d(real).mean() + self.settings.gradient_penalty * penalty


class X2CTObjective(nn.Module):
    """The loss of X2CT-GAN (CVPR 2019), and with class maps that of CCX-rayNet (ISBI 2021).

    - adversarial: least squares (Mao et al. 2017) by a 3D PatchGAN that sees the X-rays beside the volume; 0 leaves
      it out, as in X2CT-CNN.
    - voxel: mean squared difference of the voxels.
    - projection: mean absolute difference of the means along z, y and x.
    - class_maps: mean absolute difference of the predicted class maps and those of the true volume.

    Args:
        settings: weights of the terms.
        geometry: X-ray unit.
        grid: of the volumes, centred on the isocentre.
        views: of the X-rays.
    """

    g_updates, d_shares = 1, True

    def __init__(
        self, settings: X2CTObjectivePart, geometry: Geometry, grid: VolumeGrid, views: tuple[View, ...]
    ) -> None:
        super().__init__()
        self.settings, self.grid = settings, grid
        self.geometry = geometry.with_pixels(grid.shape[0])
        self._image_lift = cache(lambda view: build_lift("image", grid, self.geometry, [view], (0, 0, 0)))
        self.axes = [depth_axis(view) for view in views]
        self.d = PatchDiscriminator(1 + len(views), settings.d_features) if settings.adversarial else None
        self.d_updates = int(self.d is not None)

    def g_terms(self, made: Translation) -> dict[str, Tensor]:
        """The weighted terms."""
        weights, fake, real = self.settings, made.fake, made.real
        terms = {"voxel": weights.voxel * (fake - real).square().mean()}
        differences = [(fake.mean(axis) - real.mean(axis)).abs().mean() for axis in (2, 3, 4)]
        terms["projection"] = weights.projection * torch.stack(differences).mean()
        if self.d is not None:
            terms["adversarial"] = weights.adversarial * (self._patches(fake, made) - 1).square().mean()
        if weights.class_maps:
            if made.class_maps is None:
                raise TypeError("this network predicts no class maps: set objective.class_maps=0")
            true_maps = self.class_maps(real, made.views)
            terms["class_maps"] = weights.class_maps * (made.class_maps - true_maps).abs().mean()
        return terms

    def d_loss(self, made: Translation) -> Tensor:
        """½ (D(V) − 1)² + ½ D(g)², over patches. Raises TypeError where there is no discriminator."""
        if self.d is None:
            raise TypeError("objective.adversarial is 0: there is no discriminator")
        on_real, on_fake = self._patches(made.real, made), self._patches(made.fake, made)
        return 0.5 * ((on_real - 1).square().mean() + on_fake.square().mean())

    def _patches(self, volume: Tensor, made: Translation) -> Tensor:
        assert self.d is not None
        images = made.lifted.split(1, 1)
        depth = self.grid.shape[0]
        expanded = [expand(image, axis, depth) for image, axis in zip(images, self.axes, strict=True)]
        patches: Tensor = self.d(torch.cat([volume, *expanded], 1))
        return patches

    @torch.no_grad()
    def class_maps(self, real: Tensor, views: tuple[View, ...]) -> Tensor:
        """What share of the cube's edge each ray runs through lung, soft tissue and bone.

        Args:
            real: true volumes (B, 1, D, H, W) in [0, 1].
            views: of the X-rays.

        Returns:
            (B, N, 3, D, W) in the frame of the `image` lift, in [0, 1].
        """
        hu = unit_to_hu(real[:, 0])
        masks = torch.cat([((hu >= low) & (hu < high)).to(real) for low, high in CLASSES.values()])
        maps = []
        for view in views:
            A = ProjectionOperator(self.grid, self.geometry, [view])
            images = self._image_lift(view).to(real.device)(A(masks))
            lengths = images[:, 0] / (self.grid.shape[0] * self.grid.spacing[0])
            maps.append(lengths.unflatten(0, (len(CLASSES), -1)).transpose(0, 1))
        return torch.stack(maps, 1).clamp(0, 1)
