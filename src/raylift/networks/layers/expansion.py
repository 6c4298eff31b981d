"""From images to volumes and between their frames, for networks that enter three dimensions inside."""

from __future__ import annotations

from torch import Tensor

FRONTAL, LATERAL = 1, 2  # the axis of a volume (z, y, x) along which the view looks


def expand(maps: Tensor, axis: int, depth: int) -> Tensor:
    """Repeat the maps of a view along the axis into which it looks; equation 1 of the paper, for features.

    Args:
        maps: (B, C, D, W); a frontal view's are (z, x), a lateral view's (z, y).
        axis: 1 (y) for a frontal view, 2 (x) for a lateral one.
        depth: voxels along that axis.

    Returns:
        (B, C, z, y, x); a view of the same memory.

    Raises:
        ValueError: the axis is neither 1 nor 2.
    """
    _check(axis)
    shape = [-1] * 5
    shape[2 + axis] = depth
    return maps.unsqueeze(2 + axis).expand(shape)


def turn(volume: Tensor, axis: int) -> Tensor:
    """From the frame of a view, (z, depth, column), to that of the volume, (z, y, x), and equally back.

    A frontal view's depth is y and its columns are x; a lateral view's depth is x and its columns are y.

    Args:
        volume: (B, C, z, depth, column).
        axis: 1 for a frontal view, 2 for a lateral one.

    Returns:
        (B, C, z, y, x).

    Raises:
        ValueError: the axis is neither 1 nor 2.
    """
    _check(axis)
    return volume if axis == FRONTAL else volume.transpose(3, 4)


def _check(axis: int) -> None:
    if axis not in (FRONTAL, LATERAL):
        raise ValueError(f"a view looks along axis 1 (frontal) or 2 (lateral) of a volume (z, y, x), not {axis}")
