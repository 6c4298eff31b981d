"""The potentials price each volume on its own."""

import pytest
import torch

from raylift.networks.potential import POTENTIALS, CompactPotential, PaperPotential

every = pytest.mark.parametrize("name", POTENTIALS)


def potential(name: str, voxels: int = 16) -> torch.nn.Module:
    torch.manual_seed(0)
    return POTENTIALS[name](voxels)


@every
def test_one_price_per_volume_whatever_the_batch(name: str) -> None:
    d, volumes = potential(name), torch.rand(3, 1, 16, 16, 16)
    prices = d(volumes)
    assert prices.shape == (3,)
    assert prices.std() > 1e-6
    one_by_one = torch.cat([d(volume[None]) for volume in volumes])
    torch.testing.assert_close(prices, one_by_one, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(d(volumes.flip(0)), prices.flip(0), rtol=1e-4, atol=1e-6)


@every
def test_gradients_reach_volume_and_weights(name: str) -> None:
    d, volume = potential(name), torch.rand(1, 1, 16, 16, 16, requires_grad=True)
    d(volume).sum().backward()
    assert volume.grad is not None
    assert volume.grad.isfinite().all()
    assert (volume.grad != 0).float().mean() > 0.9
    assert all(p.grad is not None and p.grad.isfinite().all() for p in d.parameters())


def test_the_compact_one_holds_no_statistics_of_batch_or_volume() -> None:
    names = {type(module).__name__ for module in CompactPotential().modules()}
    assert not [name for name in names if "Norm" in name], names


def test_the_papers_is_of_its_size() -> None:
    """Ten residual blocks at five sizes, 32 to 512 channels, attention, and a linear layer on 512 · 4³ values."""
    d = PaperPotential(64)
    assert round(sum(p.numel() for p in d.parameters()) / 1e6, 1) == 41.3
    assert [[block.second.out_channels for block in size] for size in d.sizes] == [
        [32, 64], [64, 128], [128, 256], [256, 512], [512, 512],
    ]  # fmt: skip
    assert d.head.in_features == 512 * 4**3
