"""The structural similarity of volumes, as a loss needs it."""

from __future__ import annotations

import torch
from torch import Tensor


def structural_similarity(fake: Tensor, real: Tensor, window: int = 7) -> Tensor:
    """Mean SSIM (Wang et al. 2004) over all whole windows, uniform, value range 1, K = (0.01, 0.03).

    Equals `1 - monai.losses.SSIMLoss(3, kernel_type="uniform", win_size=7)` and takes a small part of its time on a
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
    maps = _means(maps, window)
    a, b, aa, bb, ab = maps.unbind(1)
    luminance = (2 * a * b + c1) / (a * a + b * b + c1)
    contrast_structure = (2 * (ab - a * b) + c2) / (aa - a * a + bb - b * b + c2)
    return (luminance * contrast_structure).mean()


def _means(maps: Tensor, window: int) -> Tensor:
    """Means of maps (B, N, D, H, W) over all whole windows: along each axis the product with a banded matrix."""
    d, h, w = (
        maps.new_ones(size, size).tril().triu(1 - window)[window - 1 :] / window for size in maps.shape[2:]
    )  # fmt: skip
    planes = h @ (maps @ w.T)
    return (d @ planes.flatten(3)).unflatten(3, planes.shape[3:])
