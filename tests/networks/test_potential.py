"""The potential prices each volume on its own."""

import torch

from raylift.networks.potential import Potential


def test_one_price_per_volume_whatever_the_batch() -> None:
    torch.manual_seed(0)
    potential, volumes = Potential(), torch.rand(3, 1, 32, 32, 32)
    prices = potential(volumes)
    assert prices.shape == (3,)
    assert prices.std() > 1e-6
    one_by_one = torch.cat([potential(volume[None]) for volume in volumes])
    torch.testing.assert_close(prices, one_by_one, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(potential(volumes.flip(0)), prices.flip(0), rtol=1e-4, atol=1e-6)


def test_gradients_reach_volume_and_weights() -> None:
    torch.manual_seed(0)
    potential, volume = Potential(), torch.rand(1, 1, 32, 32, 32, requires_grad=True)
    potential(volume).sum().backward()
    assert volume.grad is not None
    assert volume.grad.isfinite().all()
    assert (volume.grad != 0).float().mean() > 0.9
    assert all(p.grad is not None and p.grad.isfinite().all() for p in potential.parameters())


def test_no_statistics_of_batch_or_volume() -> None:
    names = {type(module).__name__ for module in Potential().modules()}
    assert not [name for name in names if "Norm" in name], names
