"""X-rays of CT scans by Raylift's own projector."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from raylift.drr import kernels
from raylift.drr.operator import ProjectionOperator
from raylift.geometry import Geometry, View
from raylift.images.hounsfield import hu_to_mu
from raylift.images.volume import Volume


@torch.no_grad()
def project_volume(
    volume: Volume,
    geometry: Geometry,
    views: Sequence[View],
    isocentre: Sequence[float],
    progress: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """Project a CT scan by Raylift's own projection operator.

    Args:
        volume: the whole scan in Hounsfield units.
        geometry: of the X-ray unit.
        views: directions of the X-rays.
        isocentre: world point (x, y, z) in mm.
        progress: called after each view with the number of views done.

    Returns:
        Line integrals (V, rows, columns), float32, dimensionless; row 0 is superior.
    """
    padded = torch.zeros(1, *(n + 2 * kernels.MARGIN for n in volume.array.shape))
    hu_to_mu(volume.array, out=padded[(0, *(slice(kernels.MARGIN, -kernels.MARGIN),) * 3)].numpy())
    images = []
    for view in views:
        images.append(
            ProjectionOperator(volume.grid, geometry.cameras([view], isocentre)).project_padded(padded)[0, 0].numpy()
        )
        progress(len(images))
    return np.stack(images)
