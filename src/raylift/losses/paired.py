"""The objective `paired`: differences between a reconstruction and the true volume of the same patient."""

from __future__ import annotations

import torch
from torch import Tensor

from raylift.config.recipe import PairedObjectiveConfig
from raylift.drr.operator import ProjectionOperator
from raylift.geometry import Geometry, View
from raylift.images.hounsfield import WATER_MU, normalised_to_mu
from raylift.losses.objective import GeneratorOutput, Objective, Setting
from raylift.losses.ssim import structural_similarity
from raylift.losses.transport import mass_divergence, patch_divergence, random_filters
from raylift.networks.features import FeatureExtractor, unit_length

DIRECTIONS = 8  # random directions onto which patches are projected


class PairedObjective(Objective):
    """A weighted sum of differences of voxels, structure, features, projections and masses.

    - l1, l2: mean absolute and mean squared difference of the voxels.
    - ssim: 1 − mean SSIM of the slices along the three axes, 7² window, range 1.
    - features: mean squared difference of f's maps, each normalised over channels, added over the layers.
    - projection: mean absolute difference of the line integrals through both cubes, in the batch's own views and
      one at a random angle, in units of 100 mm of water.
    - transport: `transport.mass_divergence`.
    - patches: `transport.patch_divergence` along random directions, drawn anew each time.
    - uncertainty: the negative log-likelihood of the voxels' differences under Laplace distributions of the predicted
      scale, if g predicts it; this term has no gradient to the volume itself.

    Args:
        config: the recipe's block `objective`.
        setting: further data of the training run.
    """

    config_class = PairedObjectiveConfig
    config: PairedObjectiveConfig

    def __init__(self, config: PairedObjectiveConfig, setting: Setting) -> None:
        super().__init__(config, setting)
        self.grid = setting.grid
        self.f = FeatureExtractor(seed=setting.seed) if config.features else None

    def generator_terms(self, output: GeneratorOutput) -> dict[str, Tensor]:
        """Return the weighted terms by name."""
        weights, fake, real = self.config, output.fake, output.real
        terms = {}
        if weights.l1:
            terms["l1"] = weights.l1 * (fake - real).abs().mean()
        if weights.l2:
            terms["l2"] = weights.l2 * (fake - real).square().mean()
        if weights.ssim:
            terms["ssim"] = weights.ssim * (1 - structural_similarity(fake, real))
        if self.f is not None:
            terms["features"] = weights.features * feature_distance(self.f, fake, real)
        if weights.projection:
            terms["projection"] = weights.projection * self._projection(fake - real, output.views, output.geometry)
        if weights.transport:
            terms["transport"] = weights.transport * mass_divergence(fake, real)
        if weights.patches:
            terms["patches"] = weights.patches * patch_divergence(fake, real, random_filters(DIRECTIONS))
        if weights.uncertainty and output.uncertainty is not None:
            error, scale = (fake - real).detach().abs(), output.uncertainty
            terms["uncertainty"] = weights.uncertainty * (scale.log() + error / scale).mean()
        return terms

    def _projection(self, difference: Tensor, views: tuple[View, ...], geometry: Geometry) -> Tensor:
        # Projection is linear, so the projection of the difference is the difference of the projections.
        angle = 15.0 * int(torch.randint(24, (1,)))
        geometry = geometry.with_pixels(self.grid.shape[0])
        project = ProjectionOperator(self.grid, geometry.cameras((*views, View(angle))))
        return project(normalised_to_mu(difference[:, 0])).abs().mean() / (100 * WATER_MU)


def feature_distance(f: FeatureExtractor, fake: Tensor, real: Tensor) -> Tensor:
    """Compute the mean squared difference of f's maps, scaled to unit length over channels, added over the layers.

    Args:
        f: the feature extractor.
        fake: volumes (B, 1, D, H, W).
        real: volumes of the same shape.

    Returns:
        A scalar.
    """
    with torch.no_grad():
        real_maps = [unit_length(maps) for maps in f(real)]
    pairs = zip(f(fake), real_maps, strict=True)
    return torch.stack([(unit_length(a) - b).square().mean() for a, b in pairs]).sum()
