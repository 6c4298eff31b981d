"""How much a volume depends on each of its views: magnitudes of gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import Saliency

from raylift.networks.mapping import Mapping

SLABS = 16  # parts of the volume, along z, whose gradients are looked at one by one


@dataclass(frozen=True)
class Dependence:
    """Of one patient's volume on its views.

    Args:
        maps: |∂ mean(V) / ∂ x| for each X-ray x, (N, rows, columns).
        by_slab: for `SLABS` slabs of the volume from the feet up, mean over each X-ray of the magnitude of the slab's
            own gradient, (SLABS, N).
    """

    maps: np.ndarray
    by_slab: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """Each view's share of the magnitudes, (N,); they add up to 1."""
        totals = self.maps.mean((1, 2))
        return totals / totals.sum()


def explain(mapping: Mapping, xrays: np.ndarray) -> Dependence:
    """Gradients of the volume by its X-rays, by Captum's saliency (Simonyan et al. 2014).

    Args:
        mapping: trained, in evaluation mode.
        xrays: line integrals (N, rows, columns) of the mapping's views and geometry.
    """
    device = next(mapping.network.parameters(), torch.empty(0)).device
    images = torch.from_numpy(xrays).float().to(device)[None].requires_grad_()

    def slabs(x: torch.Tensor) -> torch.Tensor:
        volume = mapping(x)[:, 0]
        return torch.stack([slab.mean((1, 2, 3)) for slab in volume.chunk(SLABS, 1)], 1)

    saliency = Saliency(slabs)
    parts = [saliency.attribute(images, target=k, abs=False)[0].cpu().numpy() for k in range(SLABS)]
    # The mean over the volume is the mean over its slabs, and so is its gradient.
    return Dependence(np.abs(np.mean(parts, 0)), np.abs(parts).mean((2, 3)))
