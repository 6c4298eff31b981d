"""Reconstruction without learning: CGLS and SART with total variation, with Raylift's projector.

Rays cross more than the cube, so both solve for a box as large as the region that a chest stand's detector sees, and
keep its cube. From two views both can only smear the X-rays along their rays: they show what learning adds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, lsqr
from skimage.restoration import denoise_tv_chambolle

from raylift.drr.operator import ProjectionOperator
from raylift.geometry import VolumeGrid
from raylift.geometry.presets import CHEST_FIELD_MM
from raylift.images.hounsfield import WATER_MU
from raylift.images.volume import Volume
from raylift.images.xray_set import XraySet

Method = Callable[[XraySet, VolumeGrid], Volume]


class System:
    """The linear system A μ = b of a set of X-rays: μ on a box of the cube's voxels, b the line integrals.

    Args:
        xrays: line integrals with their views, geometry and isocentre.
        cube: grid of the part that is kept, centred on the isocentre; the box is as large as the region that a chest
            stand's detector sees.
    """

    def __init__(self, xrays: XraySet, cube: VolumeGrid) -> None:
        spacing, voxels = cube.spacing[0], cube.shape[0]
        self.cube = cube
        # The same number of voxels is added on either side, so that the cube's voxels are voxels of the box.
        self.margins = [max(0, round((extent / spacing - voxels) / 2)) for extent in CHEST_FIELD_MM]
        shape = tuple(voxels + 2 * margin for margin in self.margins)
        self.shape = (shape[0], shape[1], shape[2])
        centre = xrays.isocentre or (0.0, 0.0, 0.0)
        grid = VolumeGrid.box(centre, self.shape, spacing)
        self.A = ProjectionOperator(grid, xrays.cameras)
        self.b = xrays.images.astype(np.float32)

    def project(self, mu: np.ndarray) -> np.ndarray:
        """Return the line integrals A μ (V, rows, columns) of a box (z, y, x)."""
        return self.A(torch.from_numpy(mu.reshape(1, *self.shape)).float())[0].numpy()

    def adjoint(self, integrals: np.ndarray) -> np.ndarray:
        """Return Aᵀ y (z, y, x) of line integrals y (V, rows, columns), the gradient of ⟨A μ, y⟩."""
        return self.A.T(torch.from_numpy(integrals.reshape(1, *self.b.shape)).float())[0].numpy()

    @property
    def inside(self) -> tuple[slice, ...]:
        """The slices (z, y, x) of the box that are the cube."""
        return tuple(slice(m, m + n) for m, n in zip(self.margins, self.cube.shape, strict=True))

    def volume(self, mu: np.ndarray) -> Volume:
        """Return the cube of a solution (z, y, x), in Hounsfield units not below -1000 (air)."""
        hu = 1000 * (np.maximum(mu[self.inside], 0) / WATER_MU - 1)
        return Volume(hu.astype(np.float32), self.cube)


def cgls(xrays: XraySet, cube: VolumeGrid, iterations: int = 5) -> Volume:
    """Reconstruct by conjugate gradients for the least-squares problem min ‖A μ − b‖², stopped early.

    Computed by SciPy's LSQR (Paige & Saunders 1982), whose iterates are those of CGLS in exact arithmetic.

    Args:
        xrays: line integrals with their views, geometry and isocentre.
        cube: grid of the result, centred on the isocentre.
        iterations: number of iterations; fewer leave more smear, more fit the X-rays better.

    Returns:
        Hounsfield units on `cube`, not below -1000.
    """
    system = System(xrays, cube)
    operator = LinearOperator(
        (system.b.size, int(np.prod(system.shape))),
        matvec=lambda mu: system.project(mu).ravel(),
        rmatvec=lambda y: system.adjoint(y).ravel(),
        dtype=np.float32,
    )
    solution = lsqr(operator, system.b.ravel(), iter_lim=iterations, atol=0, btol=0, conlim=0)[0]
    return system.volume(solution.reshape(system.shape))


def sart_tv(xrays: XraySet, cube: VolumeGrid, iterations: int = 20, smoothing: float = 0.02) -> Volume:
    """Reconstruct by SART (Andersen & Kak 1984) with total-variation denoising (Chambolle 2004) after every pass.

    μ ← TV(max(0, μ + Aᵀ((b − A μ) / A 1) / Aᵀ 1)).

    Args:
        xrays: line integrals with their views, geometry and isocentre.
        cube: grid of the result, centred on the isocentre.
        iterations: passes over all views.
        smoothing: weight of the total variation, for attenuation in units of water's.

    Returns:
        Hounsfield units on `cube`, not below -1000.
    """
    system = System(xrays, cube)
    ray_lengths = np.maximum(system.project(np.ones(system.shape, np.float32)), 1.0)  # mm
    weights = np.maximum(system.adjoint(np.ones_like(system.b)), 1e-3)
    mu = np.zeros(system.shape, np.float32)
    for _ in range(iterations):
        residual = (system.b - system.project(mu)) / ray_lengths
        mu = np.maximum(mu + system.adjoint(residual) / weights, 0)
        mu = WATER_MU * denoise_tv_chambolle(mu / WATER_MU, weight=smoothing, max_num_iter=20).astype(np.float32)
    return system.volume(mu)


ITERATIVE: dict[str, Method] = {"cgls": cgls, "sart-tv": sart_tv}
