"""Optimal transport: the de-biased Sinkhorn divergence between batches of features, and between masses in space."""

from __future__ import annotations

import torch
from geomloss import SamplesLoss
from torch import Tensor

from raylift.geometry import VolumeGrid
from raylift.networks.features import FeatureExtractor, unit_length


def feature_divergence(f: FeatureExtractor, fake: Tensor, real: Tensor, blur: float) -> Tensor:
    """S(f(fake), f(real)) of equation 3: de-biased Sinkhorn divergences of the batch, added over the layers of f.

    S(α, β) = OT_ε(α, β) − ½ OT_ε(α, α) − ½ OT_ε(β, β), with p = 2 and ε = blur². A volume is one sample: each
    map of f is normalised over channels to unit length and flattened.

    Args:
        fake: volumes (B, 1, D, H, W).
        real: volumes (B, 1, D, H, W), in no particular order.
        blur: GeomLoss's blur, in the units of the features.

    Returns:
        A scalar.
    """
    sinkhorn = SamplesLoss("sinkhorn", p=2, blur=blur, debias=True, backend="tensorized")
    with torch.no_grad():
        real_maps = f(real)
    return torch.stack([sinkhorn(_sample(a), _sample(b)) for a, b in zip(f(fake), real_maps, strict=True)]).sum()


def voxel_divergence(fake: Tensor, real: Tensor, blur: float) -> Tensor:
    """S(fake, real): as `feature_divergence`, of the volumes themselves."""
    return SamplesLoss("sinkhorn", p=2, blur=blur, debias=True, backend="tensorized")(fake.flatten(1), real.flatten(1))


def _sample(maps: Tensor) -> Tensor:
    return unit_length(maps).flatten(1)


def mass_divergence(fake: Tensor, real: Tensor, blocks: int = 8) -> Tensor:
    """How far tissue has to be moved from the fake to the real volume, pair by pair.

    Each volume is a measure: its attenuation (the network's window starts at air) in blocks³ boxes, at the boxes'
    centres in units of the cube's edge. The de-biased Sinkhorn divergence with p = 2 and a blur of one box
    prices misplaced tissue by the square of its distance, which voxel-wise terms cannot; the difference of the
    total masses is added, squared.

    Args:
        fake: volumes (B, 1, D, H, W) in [0, 1].
        real: volumes (B, 1, D, H, W) in [0, 1], in the same order.
        blocks: boxes per edge.

    Returns:
        A scalar, the mean over the batch.
    """
    pool = torch.nn.AdaptiveAvgPool3d(blocks)
    masses = [pool(volume.clamp_min(0)).flatten(1) + 1e-6 for volume in (fake, real)]
    centres = VolumeGrid.cube((0, 0, 0), 1.0, blocks).points().reshape(-1, 3)
    points = torch.tensor(centres, dtype=fake.dtype, device=fake.device).expand(len(fake), -1, -1).contiguous()
    sinkhorn = SamplesLoss("sinkhorn", p=2, blur=1 / blocks, debias=True, diameter=2.0, backend="tensorized")
    a, b = (mass / mass.sum(1, keepdim=True) for mass in masses)
    totals = [mass.mean(1) for mass in masses]
    return sinkhorn(a, points, b, points).mean() + (totals[0] - totals[1]).square().mean()
