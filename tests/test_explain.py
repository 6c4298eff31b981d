"""Gradients by view, for networks whose dependence on each is known."""

import numpy as np
import pytest
import torch

from helpers import Known, describe_tiny, known_weights
from raylift.explain import SLABS, explain


def xrays() -> np.ndarray:
    return np.random.default_rng(0).random((2, 64, 64)).astype(np.float32)


def test_shares_are_the_networks_weights() -> None:
    mapping = known_weights(Known(0.1, 0.75, -0.25), describe_tiny()).mapping
    dependence = explain(mapping, xrays())
    assert dependence.maps.shape == (2, 64, 64)
    assert (dependence.maps >= 0).all()
    assert dependence.shares == pytest.approx([0.75, 0.25], abs=0.01)


def test_maps_are_the_gradient_of_the_mean() -> None:
    mapping = known_weights(Known(0.0, 0.5, 0.5), describe_tiny()).mapping
    images = torch.from_numpy(xrays())[None].requires_grad_()
    (expected,) = torch.autograd.grad(mapping(images).mean(), images)
    assert explain(mapping, xrays()).maps == pytest.approx(expected[0].abs().numpy(), abs=1e-9)


def test_slabs_are_from_the_feet_up() -> None:
    """What lies low in the cube depends on low rows of the X-rays: brighten them and nothing else changes."""

    class Lower(Known):
        def forward(self, volume: torch.Tensor) -> torch.Tensor:
            total = super().forward(volume)
            height = torch.arange(total.shape[2])[:, None, None]
            return torch.where(height < total.shape[2] // 4, total, torch.zeros_like(total))

    dependence = explain(known_weights(Lower(0.0, 1.0, 1.0), describe_tiny()).mapping, xrays())
    assert dependence.by_slab.shape == (SLABS, 2)
    assert (dependence.by_slab[: SLABS // 4] > 0).all()
    assert (dependence.by_slab[SLABS // 4 :] == 0).all()
    rows = dependence.maps[0].sum(1)
    assert rows[:32].sum() < 0.01 * rows[32:].sum()  # row 0 is superior
