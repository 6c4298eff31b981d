"""The structural similarity of volumes, as a loss needs it."""

from __future__ import annotations

import torch
from torch import Tensor

WINDOW = 7  # voxels, edge of the uniform window
C1, C2 = 0.01**2, 0.03**2  # of a value range of 1


def structural_similarity(fake: Tensor, real: Tensor) -> Tensor:
    """Mean SSIM (Wang et al. 2004) of the slices along the three axes, that which volumes are scored by.

    Equals `raylift.evaluation.metrics.ssim`, the mean over the pairs: uniform window of 7², value range 1,
    K = (0.01, 0.03), sample covariances.

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
    """Mean SSIM from local means (B, 5, ...) of a, b, a², b² and ab."""
    a, b, aa, bb, ab = means.unbind(1)
    sample = WINDOW**2 / (WINDOW**2 - 1)
    luminance = (2 * a * b + C1) / (a * a + b * b + C1)
    contrast_structure = (2 * sample * (ab - a * b) + C2) / (sample * (aa - a * a + bb - b * b) + C2)
    return (luminance * contrast_structure).mean()


def _means(maps: Tensor, axis: int) -> Tensor:
    """Means of maps (B, N, D, H, W) over all whole windows along an axis: the product with a banded matrix."""
    size = maps.shape[axis]
    band = maps.new_ones(size, size).tril().triu(1 - WINDOW)[WINDOW - 1 :] / WINDOW
    if axis == 4:
        return maps @ band.T
    if axis == 3:
        return band @ maps
    return (band @ maps.flatten(3)).unflatten(3, maps.shape[3:])
