"""A batch on several threads gives what it gives on one, the same each time."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from raylift import networks
from raylift.networks.layers.per_sample import PerSampleParallel


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def build(name: str = "unet") -> nn.Module:
    torch.manual_seed(0)
    return networks.build(
        name, in_channels=2, out_channels=1, feature_size=8, window_size=4, voxels=32, axes=(1, 2)
    )  # fmt: skip


def step(network: nn.Module, volumes: Tensor, mixed: bool = False) -> tuple[Tensor, list[Tensor]]:
    """What comes out, and the gradients of a loss."""
    given = volumes.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        out = network(given)
    made = out if isinstance(out, tuple) else (out,)
    loss = sum((part.float() * torch.linspace(-1, 2, part.numel()).view_as(part)).mean() for part in made)
    inputs = [given, *network.parameters()]
    slopes = torch.autograd.grad(loss, inputs, allow_unused=True)  # type: ignore[arg-type]
    return made[0].detach(), [s if s is not None else torch.zeros_like(t) for s, t in zip(slopes, inputs, strict=True)]


@pytest.mark.parametrize(("name", "count"), [("unet", 2), ("unet", 3), ("ccx_raynet", 2)])
def test_gives_what_the_network_gives(name: str, count: int) -> None:
    network = build(name).double()
    assert PerSampleParallel(network).separable
    given = torch.rand(count, 2, *[32] * (2 if name == "ccx_raynet" else 3), dtype=torch.float64)
    expected, expected_slopes = step(network, given)
    found, slopes = step(PerSampleParallel(network), given)
    assert torch.allclose(found, expected, atol=1e-12)
    for a, b in zip(slopes, expected_slopes, strict=True):
        assert torch.allclose(a, b, atol=1e-6 * float(b.abs().max()) + 1e-9)


def test_without_gradients_too() -> None:
    network, volumes = build(), torch.rand(2, 2, 32, 32, 32)
    with torch.no_grad():
        found = PerSampleParallel(network)(volumes)
        assert torch.allclose(found, network(volumes), atol=1e-5)
    assert not found.requires_grad


def test_the_same_batch_gives_the_same_numbers() -> None:
    # 64³, since oneDNN's bfloat16 gradient of a 3³ convolution on 2³ voxels is garbage.
    network, volumes = PerSampleParallel(build()), torch.rand(3, 2, 64, 64, 64)
    first = step(network, volumes, mixed=True)
    for _ in range(5):
        again = step(network, volumes, mixed=True)
        assert torch.equal(first[0], again[0])
        assert all(torch.equal(a, b) for a, b in zip(first[1], again[1], strict=True))


def test_threads_see_mixed_precision() -> None:
    seen: list[torch.dtype] = []
    network = nn.Conv3d(2, 1, 1)
    network.register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    step(PerSampleParallel(network), torch.rand(2, 2, 8, 8, 8), mixed=True)
    assert seen == [torch.bfloat16] * 2


def test_a_batch_that_belongs_together_stays_together() -> None:
    sizes: list[int] = []
    for layer in (nn.BatchNorm3d(1), nn.Dropout()):
        network = nn.Sequential(nn.Conv3d(2, 1, 1), layer)
        network.register_forward_hook(lambda module, given, out: sizes.append(len(out)))
        step(PerSampleParallel(network), torch.rand(2, 2, 8, 8, 8))
    assert sizes == [2, 2]
