"""The lifts by name; imports no PyTorch, so that recipes are checked without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raylift.geometry import Geometry, View, VolumeGrid
from raylift.plugins import Registry, load

if TYPE_CHECKING:
    from raylift.lifting.lift import Lift

# module:class of a `Lift`, which is made with (grid, geometry, views, isocentre)
LIFTS: Registry[str] = Registry(
    "raylift.lifts",
    {
        "repeat": "raylift.lifting.lift:Repeat",
        "backproject": "raylift.lifting.lift:BackProject",
        "transpose": "raylift.lifting.lift:Transpose",
        "coarse": "raylift.lifting.coarse:CoarseLift",
        "noise-fixed": "raylift.lifting.noise:FixedNoise",
        "noise-fresh": "raylift.lifting.noise:FreshNoise",
        "image": "raylift.lifting.image:ImageLift",
    },
    str,
)


def build_lift(
    name: str, grid: VolumeGrid, geometry: Geometry, views: Sequence[View], isocentre: Sequence[float]
) -> Lift:
    """Make a lift.

    Args:
        name: in the registry.
        grid: the volume to fill.
        geometry: X-ray unit; its `pixels` are those of the X-rays.
        views: one per X-ray.
        isocentre: world point (x, y, z) in mm.

    Raises:
        KeyError: the name is not in the registry.
    """
    lift: Lift = load(LIFTS[name])(grid, geometry, views, isocentre)
    return lift
