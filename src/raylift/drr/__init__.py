"""Digitally reconstructed radiographs: two engines behind one interface."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from raylift.drr import plastimatch, projector
from raylift.drr.operator import ProjectionOperator
from raylift.geometry import Geometry, View
from raylift.images.volume import Volume


class Engine(Protocol):
    """Makes X-rays of a CT scan; see `drr.projector.project_volume`."""

    def __call__(
        self,
        volume: Volume,
        geometry: Geometry,
        views: Sequence[View],
        isocentre: Sequence[float],
        progress: Callable[[int], None] = ...,
    ) -> np.ndarray:
        """The whole scan in HU → line integrals (V, rows, columns)."""


ENGINES: dict[str, Engine] = {"torch": projector.project_volume, "plastimatch": plastimatch.project_volume}

__all__ = ["ENGINES", "Engine", "ProjectionOperator"]
