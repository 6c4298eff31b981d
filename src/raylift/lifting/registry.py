"""The lifts by name; imports no PyTorch, so that recipes can be checked without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raylift.geometry import Camera, VolumeGrid
from raylift.plugins import Registry, load

if TYPE_CHECKING:
    from raylift.lifting.lift import Lift

# module:class of a `Lift` with the arguments (grid, cameras, isocentre)
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


def build_lift(name: str, grid: VolumeGrid, cameras: Sequence[Camera], isocentre: Sequence[float]) -> Lift:
    """Return a new lift. Raises KeyError, through `LIFTS`, if there is none of that name.

    Args:
        name: in the registry.
        grid: of the volume.
        cameras: one per X-ray, with the rows and columns of the X-rays.
        isocentre: world point (x, y, z) in mm.
    """
    lift: Lift = load(LIFTS[name])(grid, cameras, isocentre)
    return lift
