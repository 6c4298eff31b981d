"""The Jacobian's norm by view, for networks whose dependence on each is known."""

import numpy as np
import pytest
import torch

from helpers import Known, describe_tiny, known_weights
from raylift.evaluation.saliency import SLABS, explain


def xrays() -> np.ndarray:
    return np.random.default_rng(0).random((2, 64, 64)).astype(np.float32)


def test_shares_are_the_networks_weights() -> None:
    lifted_network = known_weights(Known(0.1, 0.75, -0.25), describe_tiny()).lifted_network
    dependence = explain(lifted_network, xrays())
    assert dependence.maps.shape == (2, 64, 64)
    assert (dependence.maps >= 0).all()
    assert dependence.shares == pytest.approx([0.75, 0.25], abs=0.01)


class Opposed(Known):
    """Its upper half is the negative of what it would be."""

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        total = super().forward(volume)
        sign = torch.where(torch.arange(total.shape[2]) < total.shape[2] // 2, 1.0, -1.0)
        return total * sign[:, None, None]


@pytest.mark.parametrize("network", [Known(0.0, 0.5, 0.5), Opposed(0.0, 0.5, 0.5)])
def test_norms_are_those_of_the_jacobian(network: Known) -> None:
    """Of a linear lift, column by column: a pixel's column is what the lift makes of that pixel alone."""
    lifted_network = known_weights(network, describe_tiny()).lifted_network
    squares = np.mean([np.square(explain(lifted_network, xrays(), seed).maps) for seed in range(8)], 0)
    for view in (0, 1):
        columns, rows = np.meshgrid(np.arange(12, 52, 8), np.arange(12, 52, 8))
        norms = []
        for row, column in zip(rows.flat, columns.flat, strict=True):
            pixel = torch.zeros(1, 2, 64, 64)
            pixel[0, view, row, column] = 1
            with torch.no_grad():
                norms.append(float((lifted_network(pixel) - lifted_network(0 * pixel)).norm()))
        assert min(norms) > 0
        assert squares[view, rows, columns].mean() == pytest.approx(np.square(norms).mean(), rel=0.2)


def test_slabs_are_from_the_feet_up() -> None:
    """What lies low in the cube depends on low rows of the X-rays: brighten them and nothing else changes."""

    class Lower(Known):
        def forward(self, volume: torch.Tensor) -> torch.Tensor:
            total = super().forward(volume)
            height = torch.arange(total.shape[2])[:, None, None]
            return torch.where(height < total.shape[2] // 4, total, torch.zeros_like(total))

    dependence = explain(known_weights(Lower(0.0, 1.0, 1.0), describe_tiny()).lifted_network, xrays())
    assert dependence.by_slab.shape == (SLABS, 2)
    assert (dependence.by_slab[: SLABS // 4] > 0).all()
    assert (dependence.by_slab[SLABS // 4 :] == 0).all()
    rows = dependence.maps[0].sum(1)
    assert rows[:32].sum() < 0.01 * rows[32:].sum()  # row 0 is superior
