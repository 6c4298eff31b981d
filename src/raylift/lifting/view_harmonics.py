"""From the lifted views of any number to the channels of a network that has a fixed number of them.

`concatenate` is the paper's: a channel for each view, in the order of the recipe. `harmonics` takes 1 to 8 views, or
more, at any angles and in any order: the volume's channels are the first circular harmonics of the views' angles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from raylift.geometry import View

ORDERS = 2  # five numbers of a direction tell four views from each other: 0°, 45°, 90° and 135°


def angular_weights(views: Sequence[View]) -> Tensor:
    """The share of the half-turn to which each view is the nearest: (N,), positive, of sum 1.

    The weights of a sum over unevenly spaced projections, as in filtered back-projection: without them, a third view
    beside a frontal and a lateral one, or one that shows a direction twice, would turn the mean towards itself.
    Opposite views show the same, so angles count modulo 180°; views of the same direction share its arc.
    """
    angles = torch.tensor([view.angle for view in views], dtype=torch.float64)
    after = (angles[None] - angles[:, None]) % 180
    same = (after < 1e-6) | (after > 180 - 1e-6)
    gaps = after.masked_fill(same, 180).amin(1) + (180 - after).masked_fill(same, 180).amin(1)
    return gaps / 360 / same.sum(1)


def harmonics(lifted: Tensor, views: Sequence[View], orders: int = ORDERS) -> Tensor:
    """Means over the views, by their `angular_weights`, of vₙ, of vₙ cos 2mθₙ and of vₙ sin 2mθₙ for m = 1 ... orders.

    One frontal and one lateral view can be told from the mean and the first cosine: they are their sum and difference.

    Args:
        lifted: views (B, N, D, H, W).
        views: where they were taken.
        orders: the highest m.

    Returns:
        (B, 1 + 2 orders, D, H, W): the mean, then cosine and sine of each order.
    """
    angles = torch.tensor([math.radians(view.angle) for view in views], dtype=torch.float64)
    multiples = 2 * torch.arange(1, orders + 1)[:, None] * angles
    waves = torch.stack([multiples.cos(), multiples.sin()], 1).flatten(0, 1)  # (2 orders, N)
    weights = torch.cat([torch.ones_like(angles)[None], waves]) * angular_weights(views)
    return torch.einsum("hn,bndef->bhdef", weights.to(lifted), lifted)


def harmonic_channels(lifted: Tensor, seen: Tensor, views: Sequence[View]) -> Tensor:
    """What a network of any views sees: the harmonics, the least of the views, and how many of them see a voxel.

    A voxel that any view sees through is air, however much the others have in its way: the least is what carves the
    body out.

    Args:
        lifted: views (B, N, D, H, W), 0 where a voxel's ray misses the detector.
        seen: (N, D, H, W), whether it meets the detector.
        views: where they were taken.

    Returns:
        (B, `CHANNELS`, D, H, W).
    """
    least = lifted.masked_fill(~seen, torch.inf).amin(1, keepdim=True)
    least = least.masked_fill(~seen.any(0), 0)
    share = seen.to(lifted).mean(0).expand_as(least)
    return torch.cat([harmonics(lifted, views), least, share], 1)


CHANNELS = 3 + 2 * ORDERS
