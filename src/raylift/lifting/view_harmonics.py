"""Aggregation of any number of lifted views to a fixed number of channels, by circular harmonics of their angles.

The paper's alternative, `concatenate`, has a channel for each view in the recipe's order. `harmonics` accepts 1 to 8
views, or more, at any angles and in any order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from raylift.geometry import View

ORDERS = 2  # gives five harmonics, which distinguish the four directions 0°, 45°, 90° and 135°


def angular_weights(views: Sequence[View]) -> Tensor:
    """Return the share of the half-circle to which each view is the nearest: (N,), positive, with sum 1.

    These are the weights of a sum over unevenly spaced projections, as in filtered back-projection. Without them, two
    views of similar or equal directions would dominate the mean. Opposite views show the same, so angles count modulo
    180°; views of the same direction share its arc.
    """
    angles = torch.tensor([view.angle for view in views], dtype=torch.float64)
    after = (angles[None] - angles[:, None]) % 180
    same = (after < 1e-6) | (after > 180 - 1e-6)
    gaps = after.masked_fill(same, 180).amin(1) + (180 - after).masked_fill(same, 180).amin(1)
    return gaps / 360 / same.sum(1)


def harmonics(lifted: Tensor, views: Sequence[View], orders: int = ORDERS) -> Tensor:
    """Compute the means of vₙ, vₙ cos 2mθₙ and vₙ sin 2mθₙ over the views, for m = 1 ... orders.

    The means are weighted by `angular_weights`. A frontal and a lateral view can be recovered from the mean and the
    first cosine, as their sum and difference.

    Args:
        lifted: views (B, N, D, H, W).
        views: direction of each view.
        orders: the highest m.

    Returns:
        (B, 1 + 2 orders, D, H, W): the mean, then cosine and sine of each order.
    """
    angles = torch.tensor([math.radians(view.angle) for view in views], dtype=torch.float64)
    multiples = 2 * torch.arange(1, orders + 1)[:, None] * angles
    waves = torch.stack([multiples.cos(), multiples.sin()], 1).flatten(0, 1)  # (2 orders, N)
    weights = torch.cat([torch.ones_like(angles)[None], waves]) * angular_weights(views)
    return torch.einsum("hn,bndef->bhdef", weights.to(lifted), lifted)


def harmonic_channels(lifted: Tensor, visible: Tensor, views: Sequence[View]) -> Tensor:
    """Compute the input of a network for any views: the harmonics, the minimum, and the share of views of each voxel.

    If any ray through a voxel is hardly attenuated, the voxel is air, whatever the other views show. The minimum over
    the views therefore outlines the body.

    Args:
        lifted: views (B, N, D, H, W), 0 where a voxel's ray misses the detector.
        visible: (N, D, H, W), whether the ray through the voxel meets the detector.
        views: direction of each view.

    Returns:
        Channels (B, `CHANNELS`, D, H, W).
    """
    minimum = lifted.masked_fill(~visible, torch.inf).amin(1, keepdim=True)
    minimum = minimum.masked_fill(~visible.any(0), 0)
    share = visible.to(lifted).mean(0).expand_as(minimum)
    return torch.cat([harmonics(lifted, views), minimum, share], 1)


CHANNELS = 3 + 2 * ORDERS
