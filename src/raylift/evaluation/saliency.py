"""Dependence of a volume on each of its views, by norms of its Jacobian."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from raylift.model.lifted_network import LiftedNetwork

SLABS = 16  # number of slabs along z into which the volume is divided


@dataclass(frozen=True)
class Dependence:
    """The dependence of one patient's volume on its views.

    Args:
        maps: |∂V / ∂x| (N, rows, columns), the norm over the volume's voxels, for each pixel x of each X-ray.
        by_slab: (SLABS, N), the norm over the voxels of each slab, from the feet up, as root mean square over the
            pixels of each X-ray.
    """

    maps: np.ndarray
    by_slab: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """The shares (N,) of the views in the norms; they sum to 1."""
        totals: np.ndarray = self.maps.mean((1, 2))
        shares: np.ndarray = totals / totals.sum()
        return shares


def explain(lifted_network: LiftedNetwork, xrays: np.ndarray, seed: int = 0) -> Dependence:
    """Return the estimated norm of the Jacobian of the volume by its X-rays, pixel by pixel.

    Σᵢ (∂Vᵢ / ∂x)² = E[(∂(r · V) / ∂x)²] for random signs r (Hutchinson 1990), so one gradient of a random sum for each
    slab suffices. The gradient of the volume's mean does not, since contributions of opposite signs cancel in it.

    Args:
        lifted_network: trained, in evaluation mode.
        xrays: line integrals (N, rows, columns) of the lifted network's views and geometry.
        seed: of the random signs.
    """
    device = next(lifted_network.network.parameters(), torch.empty(0)).device
    images = torch.from_numpy(xrays).float().to(device)[None].requires_grad_()
    volume = lifted_network(images)[:, 0]
    generator = torch.Generator().manual_seed(seed)
    squares = []
    for slab in volume.chunk(SLABS, 1):
        signs = (2 * torch.randint(2, slab.shape, generator=generator) - 1).to(slab)
        (slope,) = torch.autograd.grad((signs * slab).sum(), images, retain_graph=True)
        squares.append(slope[0].square().cpu().numpy())
    return Dependence(np.sqrt(np.sum(squares, 0)), np.sqrt(np.mean(squares, (2, 3))))
