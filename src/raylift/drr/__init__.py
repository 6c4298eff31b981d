"""Digitally reconstructed radiographs: two engines behind one interface."""

from collections.abc import Callable, Sequence

import numpy as np

from raylift.drr import plastimatch, projector
from raylift.drr.projector import Projector
from raylift.geometry import Geometry, View
from raylift.volumes import Volume

# (whole scan in HU, unit, views, isocentre in mm) -> line integrals (V, rows, columns)
Engine = Callable[[Volume, Geometry, Sequence[View], Sequence[float]], np.ndarray]

ENGINES: dict[str, Engine] = {"torch": projector.project_volume, "plastimatch": plastimatch.project_volume}

__all__ = ["ENGINES", "Engine", "Projector"]
