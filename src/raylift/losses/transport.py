"""Optimal transport between batches of features, between masses in space, and between the patches of a region."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from geomloss import SamplesLoss
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable

from raylift.geometry import VolumeGrid
from raylift.networks.features import FeatureExtractor, unit_length


def feature_divergence(
    f: FeatureExtractor,
    fake: Tensor,
    real: Tensor,
    blur: float,
    layers: Sequence[int] = (1, 2, 3, 4),
    debias: bool = True,
    pairing: bool = False,
) -> Tensor:
    """Compute S(f(fake), f(real)) of equation 3: de-biased Sinkhorn divergences of the batch, added over layers of f.

    S(α, β) = OT_ε(α, β) − ½ OT_ε(α, α) − ½ OT_ε(β, β), with p = 2 and ε = blur². Each volume is one sample: its maps
    of f are scaled to unit length over channels and flattened.

    Args:
        f: the feature extractor.
        fake: volumes (B, 1, D, H, W).
        real: volumes (B, 1, D, H, W), in no particular order.
        blur: GeomLoss's blur, in the units of the features.
        layers: layers of f to compare, numbered from 1.
        debias: False for OT_ε(α, β) alone.
        pairing: compare sample k of fake with sample k of real only; the divergence is then the mean over the samples
            of ``½ |f(fake) − f(real)|²``.

    Returns:
        A scalar.
    """
    sinkhorn: Callable[[Tensor, Tensor], Tensor] = SamplesLoss(
        "sinkhorn", p=2, blur=blur, debias=debias, backend="tensorized"
    )
    with torch.no_grad():
        real_maps = f(real)
    if pairing:
        sinkhorn = _half_square
    pairs = [pair for k, pair in enumerate(zip(f(fake), real_maps, strict=True), 1) if k in layers]
    return torch.stack([sinkhorn(_everywhere(_sample(a)), _everywhere(_sample(b))) for a, b in pairs]).sum()


def _half_square(a: Tensor, b: Tensor) -> Tensor:
    """Return half the squared distance between samples (B, K) of a pair, averaged over the pairs."""
    return (a - b).square().sum(1).mean() / 2


def voxel_divergence(fake: Tensor, real: Tensor, blur: float, debias: bool = True) -> Tensor:
    """Return S(fake, real) of volumes (B, 1, D, H, W) themselves, otherwise as in `feature_divergence`."""
    sinkhorn = SamplesLoss("sinkhorn", p=2, blur=blur, debias=debias, backend="tensorized")
    divergence: Tensor = sinkhorn(_everywhere(fake.flatten(1)), _everywhere(real.flatten(1)))
    return divergence


def _everywhere(samples: Tensor) -> Tensor:
    """Return the samples (processes · B, K) of all processes that train together, each of which has (B, K)."""
    gathered: Tensor = _Gather.apply(samples) if distributed.is_initialized() else samples
    return gathered


class _Gather(torch.autograd.Function):
    """Gather the samples of all processes, each of which then computes the same loss from them.

    The backward pass adds a sample's gradients over the processes. Averaging the gradients of parameters later divides
    by the number of processes, so the result is the gradient of the one loss.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        parts = [
            torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(distributed.get_world_size())
        ]
        distributed.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous()
        distributed.all_reduce(total)
        return total.chunk(distributed.get_world_size())[distributed.get_rank()]


def _sample(maps: Tensor) -> Tensor:
    return unit_length(maps).flatten(1)


def mass_divergence(fake: Tensor, real: Tensor, blocks: int = 8) -> Tensor:
    """Compute how far tissue has to be moved to turn the fake volume into the real one, pair by pair.

    Each volume is a measure: its attenuation (0 is air) in blocks³ boxes, at the boxes' centres in units of the cube's
    edge. The de-biased Sinkhorn divergence with p = 2 and a blur of one box penalises misplaced tissue by the square of
    its distance, which voxel-wise terms cannot. The squared difference of the mean attenuations is added.

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
    divergence: Tensor = sinkhorn(a, points, b, points).mean() + (totals[0] - totals[1]).square().mean()
    return divergence


def patch_divergence(fake: Tensor, real: Tensor, filters: Tensor, block: int = 8) -> Tensor:
    """Compute the distance between the patches of the fake and the real volume in each region, ignoring positions.

    This is the sliced Wasserstein distance (Rabin et al. 2011) with p = 1. Patches are projected onto directions, the
    filters, for which optimal transport between fake and real patches is sorting. Regions are blocks of block³ voxels:
    a blurred edge costs more than a sharp one slightly displaced, and patches of distant organs are not matched.

    Args:
        fake: volumes (B, 1, D, H, W), each edge a multiple of the block.
        real: volumes of the same shape, in the same order.
        filters: directions (K, 1, P, P, P) of unit length, P odd.
        block: edge of a region in voxels.

    Returns:
        A scalar, the mean over filters, patches and pairs.
    """
    fake_sorted, real_sorted = (_projected(volume, filters, block).sort(-1).values for volume in (fake, real))
    return (fake_sorted - real_sorted).abs().mean()


def random_filters(count: int, patch: int = 5) -> Tensor:
    """Return random directions (count, 1, patch, patch, patch) of length 1 and mean 0, which ignore density."""
    filters = torch.randn(count, 1, patch, patch, patch)
    filters -= filters.mean((2, 3, 4), keepdim=True)
    directions: Tensor = filters / filters.flatten(1).norm(dim=1).view(-1, 1, 1, 1, 1)
    return directions


def _projected(volume: Tensor, filters: Tensor, block: int) -> Tensor:
    """Return the projections (B, K, blocks, block³) of the patches around all voxels; outside the volume is air."""
    maps = F.conv3d(volume, filters.to(volume), padding=filters.shape[-1] // 2)
    return maps.unfold(2, block, block).unfold(3, block, block).unfold(4, block, block).flatten(5).flatten(2, 4)
