"""Conversion of features from images to volumes and between their frames, for networks that go from 2D to 3D."""

from __future__ import annotations

from torch import Tensor

FRONTAL, LATERAL = 1, 2  # the axis of a volume (z, y, x) along which the view looks


def expand(maps: Tensor, axis: int, depth: int) -> Tensor:
    """Repeat the maps of a view along the axis in which it looks: equation 1 of the paper, applied to features.

    Args:
        maps: (B, C, D, W); the last axes are (z, x) in a frontal view, (z, y) in a lateral one.
        axis: 1 (y) for a frontal view, 2 (x) for a lateral one.
        depth: voxels along that axis.

    Returns:
        Features (B, C, z, y, x), sharing the memory of `maps`.

    Raises ValueError if the axis is neither 1 nor 2.
    """
    _check(axis)
    shape = [-1] * 5
    shape[2 + axis] = depth
    return maps.unsqueeze(2 + axis).expand(shape)


def turn(volume: Tensor, axis: int) -> Tensor:
    """Turn a volume from the frame of a view, (z, depth, column), to that of the volume, (z, y, x), or back.

    A frontal view's depth is y and its columns are x; a lateral view's depth is x and its columns are y.

    Args:
        volume: (B, C, z, depth, column).
        axis: 1 for a frontal view, 2 for a lateral one.

    Returns:
        The same values as (B, C, z, y, x), sharing the memory of `volume`.

    Raises ValueError if the axis is neither 1 nor 2.
    """
    _check(axis)
    return volume if axis == FRONTAL else volume.transpose(3, 4)


def _check(axis: int) -> None:
    if axis not in (FRONTAL, LATERAL):
        raise ValueError(f"a view looks along axis 1 (frontal) or 2 (lateral) of a volume (z, y, x), not {axis}")
