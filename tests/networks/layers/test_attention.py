"""Attention in windows: the compiled loop against PyTorch's attention on gathered tokens, and windows by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor

from raylift.networks.layers.attention import _gathered, attend, relative_positions, windows_of


@pytest.mark.parametrize(
    ("grid", "window", "shift"),
    [
        ((4, 4, 8), (4, 4, 4), (0, 0, 0)),  # whole windows
        ((8, 4, 8), (4, 4, 4), (2, 0, 2)),  # shifted along the axes that have more than one
        ((5, 7, 3), (4, 4, 3), (2, 2, 0)),  # windows that the grid does not fill
        ((6, 5, 7), (5, 5, 5), (2, 0, 2)),  # 125 tokens: more than are taken at a time, and no multiple of 4
    ],
)
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 0.02)])
@pytest.mark.usefixtures("threads")
def test_equals_pytorchs_attention(
    kind: torch.dtype, tolerance: float, grid: tuple[int, int, int], window: tuple[int, int, int],
    shift: tuple[int, int, int],
) -> None:  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    heads, d, count, n = 2, 8, int(np.prod(grid)), int(np.prod(window))
    drawn = [(2, count, 3 * heads * d), (3 * heads * d,), (heads, n, n), (2, count, heads * d)]
    qkv, padding, bias, gradient = (torch.randn(shape, generator=generator) for shape in drawn)
    windows = windows_of(grid, window, shift)
    given = [qkv.to(kind).requires_grad_(), padding.requires_grad_(), bias.requires_grad_()]
    exact = [tensor.detach().double().requires_grad_() for tensor in given]
    found, expected = attend(*given, windows), _gathered(*exact, windows)
    assert found.dtype == kind
    slopes = torch.autograd.grad(found, given, gradient.to(kind), allow_unused=True)
    wanted = torch.autograd.grad(expected, exact, gradient.to(kind).double(), allow_unused=True)
    for a, b in zip((found, *slopes), (expected, *wanted), strict=True):
        assert a is not None
        assert b is not None
        assert (a.double() - b).abs().max() <= tolerance * (1 + b.abs().max())


def test_windows_by_hand() -> None:
    """A row of five tokens in windows of two, shifted by one: the last window holds the first token and padding."""
    windows = windows_of((1, 1, 5), (1, 1, 2), (0, 0, 1))
    assert windows.indices.tolist() == [[1, 2], [3, 4], [-1, 0]]
    # Only the last holds what was not neighbours.
    assert (windows.regions[:, 0] != windows.regions[:, 1]).tolist() == [False, False, True]
    still = windows_of((1, 1, 4), (1, 1, 2), (0, 0, 0))
    assert still.indices.tolist() == [[0, 1], [2, 3]]
    assert still.regions.size == 0


def test_tokens_of_other_windows_and_regions_are_not_seen() -> None:
    qkv = torch.randn(1, 8, 12, generator=torch.Generator().manual_seed(0)).requires_grad_()
    out = attend(qkv, torch.zeros(12), torch.zeros(1, 4, 4), windows_of((1, 1, 8), (1, 1, 4), (0, 0, 2)))

    def seen_by(token: int) -> set[int]:
        (slope,) = torch.autograd.grad(out[0, token].sum(), qkv, retain_graph=True)
        strength: Tensor = slope[0].abs().sum(1)
        return set((strength > 1e-6).nonzero()[:, 0].tolist())

    assert seen_by(3) == {2, 3, 4, 5}
    assert seen_by(0) == {0, 1}
    assert seen_by(7) == {6, 7}


def test_relative_positions() -> None:
    index = relative_positions(3)
    assert index.shape == (27, 27)
    assert len(index.unique()) == 125
    assert len({int(index[k, k]) for k in range(27)}) == 1
    # One step along x between two pairs of tokens, wherever they are.
    assert index[1, 0] == index[2, 1] == index[26, 25]
    assert index[0, 1] != index[1, 0]
