"""Projections of a volume for the cameras of its X-rays."""

from __future__ import annotations

import numpy as np
import torch

from raylift.drr.operator import ProjectionOperator
from raylift.geometry import VolumeGrid
from raylift.images.hounsfield import WATER_MU, hu_to_mu
from raylift.images.volume import Volume
from raylift.images.xray_set import XraySet

WHOLE = 0.9  # share of the cube's edge that a ray crosses at least where it counts as crossing the whole cube


def reproject(volume: Volume, xrays: XraySet) -> np.ndarray:
    """Return the line integrals (N, rows, columns) through a volume, for the cameras of a set of X-rays."""
    mu = torch.from_numpy(hu_to_mu(volume.array.astype(np.float32)))
    with torch.inference_mode():
        return ProjectionOperator(volume.grid, xrays.cameras)(mu[None])[0].numpy()


def crossing_rays(grid: VolumeGrid, xrays: XraySet) -> np.ndarray:
    """Return the mask (N, rows, columns) of the rays that cross (nearly) the whole cube of a grid."""
    water = Volume(np.zeros(grid.shape, np.float32), grid)
    return reproject(water, xrays) > WHOLE * WATER_MU * grid.shape[0] * grid.spacing[0]
