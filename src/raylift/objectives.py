"""What training minimises: the paper's neural optimal transport, and the paired objective.

An objective gives the terms of the loss of g by name, already weighted; their sum is minimised. One that trains a
potential d besides gives its loss too.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raylift.drr import Projector
from raylift.geometry import Geometry, View, VolumeGrid
from raylift.networks.features import FeatureExtractor
from raylift.networks.potential import Potential
from raylift.recipe import PairedObjectivePart, PaperObjectivePart
from raylift.transport import feature_divergence, mass_divergence
from raylift.volumes import WATER_MU


class Objective(Protocol):
    """The terms of g's loss for volumes (B, 1, D, H, W) in [0, 1]; d is None where there is no potential."""

    g_updates: int
    d: Potential | None

    def g_terms(self, fake: Tensor, real: Tensor, views: tuple[View, ...]) -> dict[str, Tensor]: ...
    def d_loss(self, fake: Tensor, real: Tensor) -> Tensor: ...


class PaperObjective(nn.Module):
    """Equations 3 and 4 of the paper, as published; pairs are not used as pairs.

    Args:
        settings: λ_c, λ_d, the weight of L_d and the blur.
        seed: of the frozen extractor f.
    """

    def __init__(self, settings: PaperObjectivePart, seed: int) -> None:
        super().__init__()
        self.settings = settings
        self.g_updates = settings.g_updates
        self.f = FeatureExtractor(seed=seed)
        self.d = Potential()

    def g_terms(self, fake: Tensor, real: Tensor, views: tuple[View, ...]) -> dict[str, Tensor]:
        """L_g = λ_c · S(f(g(V_cat)), f(V)) − λ_d · d(g(V_cat)), equation 3."""
        return {
            "sinkhorn": self.settings.sinkhorn * feature_divergence(self.f, fake, real, self.settings.blur),
            "potential": -self.settings.potential * self.d(fake).mean(),
        }

    def d_loss(self, fake: Tensor, real: Tensor) -> Tensor:
        """L_d = d(g(V_cat)) − d(V), equation 4, with the authors' weight."""
        return self.settings.potential_loss * (self.d(fake).mean() - self.d(real).mean())


class PairedObjective(nn.Module):
    """Voxels, structure, projections and masses of each pair.

    - l1, l2: mean absolute and mean squared difference of the voxels.
    - ssim: 1 − SSIM with a 7³ window and range 1.
    - projection: mean absolute difference of the line integrals through both cubes, in the batch's own views and
      one at a random angle, in units of 100 mm of water.
    - transport: `transport.mass_divergence`.

    Args:
        settings: weights of the terms.
        geometry: X-ray unit of the projections.
        grid: of the volumes, centred on the isocentre.
    """

    g_updates = 1
    d = None

    def __init__(self, settings: PairedObjectivePart, geometry: Geometry, grid: VolumeGrid) -> None:
        super().__init__()
        self.settings, self.grid = settings, grid
        self.geometry = geometry.with_pixels(grid.shape[0])
        self._projectors: dict[View, Projector] = {}

    def g_terms(self, fake: Tensor, real: Tensor, views: tuple[View, ...]) -> dict[str, Tensor]:
        """The weighted terms."""
        weights = self.settings
        terms = {"l1": weights.l1 * (fake - real).abs().mean()}
        if weights.l2:
            terms["l2"] = weights.l2 * (fake - real).square().mean()
        if weights.ssim:
            terms["ssim"] = weights.ssim * (1 - structural_similarity(fake, real))
        if weights.projection:
            terms["projection"] = weights.projection * self._projection(fake - real, views)
        if weights.transport:
            terms["transport"] = weights.transport * mass_divergence(fake, real)
        return terms

    def d_loss(self, fake: Tensor, real: Tensor) -> Tensor:
        """There is no potential. Raises TypeError."""
        raise TypeError("the paired objective has no potential")

    def _projection(self, difference: Tensor, views: tuple[View, ...]) -> Tensor:
        # A projection is linear: that of the difference is the difference of the two.
        mu = 2 * WATER_MU * difference[:, 0]
        angle = 15.0 * int(torch.randint(24, (1,)))
        rays = [self._projector(view, mu.device)(mu) for view in (*views, View(angle))]
        return torch.cat(rays, 1).abs().mean() / (100 * WATER_MU)

    def _projector(self, view: View, device: torch.device) -> Projector:
        if view not in self._projectors:
            self._projectors[view] = Projector(self.grid, self.geometry, [view], (0, 0, 0)).to(device)
        return self._projectors[view]


def structural_similarity(fake: Tensor, real: Tensor, window: int = 7) -> Tensor:
    """Mean SSIM (Wang et al. 2004) over all whole windows, uniform, value range 1, K = (0.01, 0.03).

    Equals `1 - monai.losses.SSIMLoss(3, kernel_type="uniform", win_size=7)` and takes an eighth of its time on a
    CPU, since a mean over a cube is three means along its axes.

    Args:
        fake: volumes (B, 1, D, H, W).
        real: volumes of the same shape.
        window: edge in voxels.

    Returns:
        A scalar, at most 1.
    """
    c1, c2 = 0.01**2, 0.03**2
    maps = torch.cat([fake, real, fake * fake, real * real, fake * real], 1)
    for axis in range(3):
        kernel = [window if k == axis else 1 for k in range(3)]
        maps = F.avg_pool3d(maps, kernel, stride=1)
    a, b, aa, bb, ab = maps.unbind(1)
    luminance = (2 * a * b + c1) / (a * a + b * b + c1)
    contrast_structure = (2 * (ab - a * b) + c2) / (aa - a * a + bb - b * b + c2)
    return (luminance * contrast_structure).mean()
