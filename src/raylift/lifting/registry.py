"""The lifts by name; imports no PyTorch, so that recipes can be checked without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raylift.geometry import Geometry, View, VolumeGrid
from raylift.plugins import Registry, load

if TYPE_CHECKING:
    from raylift.lifting.lift import Lift

# module:class of a `Lift` with the arguments (grid, geometry, views, isocentre)
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
    """Return a new lift. Raises KeyError, through `LIFTS`, if there is none of that name.

    Args:
        name: in the registry.
        grid: of the volume.
        geometry: of the X-ray unit; its `pixels` are those of the X-rays.
        views: one per X-ray.
        isocentre: world point (x, y, z) in mm.
    """
    lift: Lift = load(LIFTS[name])(grid, geometry, views, isocentre)
    return lift
