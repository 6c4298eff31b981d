"""The projectors for whole scans by name; imports no PyTorch, so that commands can list their choices at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from raylift.plugins import Registry, load

if TYPE_CHECKING:
    import numpy as np

    from raylift.geometry import Geometry, View
    from raylift.images.volume import Volume


class ScanProjector(Protocol):
    """A function that computes X-rays of a CT scan, like `drr.projector.project_volume`."""

    def __call__(
        self,
        volume: Volume,
        geometry: Geometry,
        views: Sequence[View],
        isocentre: Sequence[float],
        progress: Callable[[int], None] = ...,
    ) -> np.ndarray:
        """Return line integrals (V, rows, columns) of a whole scan in HU."""


# module:function of a `ScanProjector`
PROJECTORS: Registry[str] = Registry(
    "raylift.projectors",
    {
        "torch": "raylift.drr.projector:project_volume",
        "plastimatch": "raylift.drr.plastimatch:project_volume",
    },
    str,
)


def load_projector(name: str) -> ScanProjector:
    """Return a projector of scans by its name. Raises KeyError, through `PROJECTORS`, if there is none."""
    projector: ScanProjector = load(PROJECTORS[name])
    return projector
