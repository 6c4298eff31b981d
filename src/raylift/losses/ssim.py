"""The structural similarity of volumes in PyTorch, for use in a loss."""

from __future__ import annotations

import torch
from torch import Tensor

WINDOW_VOXELS = 7  # voxels, edge of the uniform window
C1, C2 = 0.01**2, 0.03**2  # of a value range of 1


def structural_similarity(fake: Tensor, real: Tensor) -> Tensor:
    """Compute the mean SSIM (Wang et al. 2004) of the slices along the three axes.

    It equals the metric `raylift.evaluation.metrics.ssim`, averaged over the pairs: uniform window of 7², value range
    1, K = (0.01, 0.03), sample covariances.

    Args:
        fake: volumes (B, 1, D, H, W), at least 7 voxels along each axis.
        real: volumes of the same shape.

    Returns:
        A scalar, at most 1.
    """
    maps = torch.cat([fake, real, fake * fake, real * real, fake * real], 1)
    rows, columns = _means(maps, 3), _means(maps, 4)
    along = [_similarity(_means(columns, 3)), _similarity(_means(columns, 2)), _similarity(_means(rows, 2))]
    return torch.stack(along).mean()


def _similarity(means: Tensor) -> Tensor:
    """Return the mean SSIM from local means (B, 5, ...) of a, b, a², b² and ab."""
    a, b, aa, bb, ab = means.unbind(1)
    sample = WINDOW_VOXELS**2 / (WINDOW_VOXELS**2 - 1)
    luminance = (2 * a * b + C1) / (a * a + b * b + C1)
    contrast_structure = (2 * sample * (ab - a * b) + C2) / (sample * (aa - a * a + bb - b * b) + C2)
    return (luminance * contrast_structure).mean()


def _means(maps: Tensor, axis: int) -> Tensor:
    """Return the means of maps (B, N, D, H, W) over all whole windows along an axis, as a banded matrix product."""
    size = maps.shape[axis]
    band = maps.new_ones(size, size).tril().triu(1 - WINDOW_VOXELS)[WINDOW_VOXELS - 1 :] / WINDOW_VOXELS
    if axis == 4:
        return maps @ band.T
    if axis == 3:
        return band @ maps
    means: Tensor = (band @ maps.flatten(3)).unflatten(3, maps.shape[3:])
    return means
