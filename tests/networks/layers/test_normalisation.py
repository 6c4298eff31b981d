"""The compiled normalisation against PyTorch's own, forth and back."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from raylift.networks.layers.normalisation import LayerNorm, layer_norm, normalised

# Values far from 0 beside a small spread, as sums of squares in single precision get wrong.
OFFSETS = torch.tensor([0.0, 3.0, -40.0, 0.5, 7.0]).view(1, 5, 1, 1, 1)


def maps(seed: int, shape: tuple[int, ...] = (2, 5, 6, 7, 9)) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + OFFSETS


def reference(x: Tensor, beside: Tensor | None = None, both: bool = False) -> Tensor:
    out = F.instance_norm(x)
    if beside is not None:
        out = out + (F.instance_norm(beside) if both else beside)
    return F.leaky_relu(out)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize(("with_beside", "both"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_equals_pytorch(
    kind: torch.dtype, tolerance: float, with_beside: bool, both: bool, layout: torch.memory_format, threads: int
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        x, beside, gradient = (maps(seed).to(kind) for seed in range(3))
        gradient = gradient - gradient.mean((2, 3, 4), keepdim=True)
        given = [t.contiguous(memory_format=layout).requires_grad_() for t in ((x, beside) if with_beside else (x,))]
        exact = [t.detach().double().requires_grad_() for t in given]
        found = normalised(given[0], given[1] if with_beside else None, both)
        expected = reference(exact[0], exact[1] if with_beside else None, both)
        assert found.dtype == kind
        found_slopes = torch.autograd.grad(found, given, gradient)
        expected_slopes = torch.autograd.grad(expected, exact, gradient.double())
    finally:
        torch.set_num_threads(before)
    for a, b in zip((found, *found_slopes), (expected, *expected_slopes), strict=True):
        assert (a.double() - b).abs().max() < tolerance * b.abs().max()


def test_constant_maps_become_zero() -> None:
    constant = torch.full((1, 3, 4, 4, 4), 5.0, requires_grad=True)
    out = normalised(constant)
    assert not out.detach().any()
    (slope,) = torch.autograd.grad(out.sum(), constant)
    assert slope.isfinite().all()


def test_double_precision_is_pytorchs() -> None:
    x, beside = maps(0), maps(1)
    assert torch.allclose(normalised(x, beside, both=True), reference(x, beside, both=True))


@pytest.mark.parametrize("channels", [3, 12, 48])
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm_equals_pytorchs(affine: bool, kind: torch.dtype, tolerance: float, channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens, gradient = (torch.randn(2, 5, 70, channels, generator=generator).to(kind) for _ in range(2))
    layer = LayerNorm(channels)
    torch.nn.init.normal_(layer.weight, generator=generator)
    torch.nn.init.normal_(layer.bias, generator=generator)
    given = [(3 * tokens + 1).requires_grad_(), *([layer.weight, layer.bias] if affine else [])]
    exact = [tensor.detach().double().requires_grad_() for tensor in given]
    found, expected = layer_norm(*given), F.layer_norm(exact[0], (channels,), *exact[1:])
    slopes = torch.autograd.grad(found, given, gradient)
    wanted = torch.autograd.grad(expected, exact, gradient.double())
    for a, b in zip((found, *slopes), (expected, *wanted), strict=True):
        assert (a.double() - b).abs().max() <= tolerance * (1 + b.abs().max())
    if affine:
        assert torch.equal(layer(given[0]), found)
