"""How much a volume depends on each of its views: norms of its Jacobian."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from raylift.model.lifted_network import LiftedNetwork

SLABS = 16  # parts of the volume, along z, that are looked at one by one


@dataclass(frozen=True)
class Dependence:
    """Of one patient's volume on its views.

    Args:
        maps: |∂V / ∂x|, the norm over the volume's voxels, for each pixel x of each X-ray, (N, rows, columns).
        by_slab: for `SLABS` slabs of the volume from the feet up, root mean square over each X-ray of the norm over
            the slab's voxels, (SLABS, N).
    """

    maps: np.ndarray
    by_slab: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """Each view's share of the norms, (N,); they add up to 1."""
        totals = self.maps.mean((1, 2))
        return totals / totals.sum()


def explain(lifted_network: LiftedNetwork, xrays: np.ndarray, seed: int = 0) -> Dependence:
    """Estimate the norm of the Jacobian of the volume by its X-rays, pixel by pixel.

    Σᵢ (∂Vᵢ / ∂x)² = E[(∂(r · V) / ∂x)²] for random signs r (Hutchinson 1990), so gradients of random sums do, one for
    each slab. The gradient of the volume's mean would not: what raises one voxel and lowers another cancels in it.

    Args:
        lifted_network: trained, in evaluation mode.
        xrays: line integrals (N, rows, columns) of the lifted_network's views and geometry.
        seed: of the signs.
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
