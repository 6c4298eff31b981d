"""Self-attention in windows of a token grid (Liu et al. 2021), the grid's edges and cyclic shifts included."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from raylift.networks.layers import attention_kernels as kernels
from raylift.numerics.bfloat16 import rows_of
from raylift.numerics.compiled import applies, filling, in_parts

Size = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Windows:
    """Which tokens share a window.

    Args:
        places: (windows, n), int32: numbers of the tokens, in C order of the grid; −1 where the grid ends before the
            window does.
        regions: (windows, n), int32: tokens that only the cyclic shift has brought together have different ones;
            (windows, 0) where there is no shift.
    """

    places: np.ndarray
    regions: np.ndarray


@lru_cache(maxsize=64)
def windows_of(grid: Size, window: Size, shift: Size) -> Windows:
    """The windows of a grid of tokens, after a cyclic shift towards its beginning.

    Args:
        grid: (D, H, W) tokens; windows that it does not fill are filled up at its end.
        window: edges.
        shift: tokens by which the filled-up grid is shifted along each axis.
    """
    full = [-(-size // edge) * edge for size, edge in zip(grid, window, strict=True)]
    numbers = np.full(full, -1, np.int32)
    numbers[: grid[0], : grid[1], : grid[2]] = np.arange(np.prod(grid)).reshape(grid)
    numbers = np.roll(numbers, [-by for by in shift], (0, 1, 2))
    regions = np.zeros(full, np.int32)
    for axis, (size, edge, by) in enumerate(zip(full, window, shift, strict=True)):
        at = np.arange(size)
        part = (at >= size - edge).astype(np.int32) + (at >= size - by) if by else np.zeros(size, np.int32)
        regions = 3 * regions + part.reshape([-1 if k == axis else 1 for k in range(3)])
    regions = _cut(regions, window)
    return Windows(_cut(numbers, window), regions if any(shift) else regions[:, :0].copy())


def _cut(grid: np.ndarray, window: Size) -> np.ndarray:
    """(D, H, W) → (windows, n)."""
    d, h, w = (size // edge for size, edge in zip(grid.shape, window, strict=True))
    parts = grid.reshape(d, window[0], h, window[1], w, window[2]).transpose(0, 2, 4, 1, 3, 5)
    return np.ascontiguousarray(parts.reshape(d * h * w, -1))


@lru_cache
def relative_positions(window: int) -> Tensor:
    """For each two tokens of a window, in C order, the number of their relative position: (window³, window³)."""
    places = torch.stack(torch.meshgrid(*[torch.arange(window, device="cpu")] * 3, indexing="ij")).flatten(1)
    steps = places[:, :, None] - places[:, None, :] + window - 1
    edge = 2 * window - 1
    return (steps[0] * edge + steps[1]) * edge + steps[2]


def attend(qkv: Tensor, padding: Tensor, bias: Tensor, windows: Windows) -> Tensor:
    """softmax(q kᵀ / √d + bias + mask) v in every window.

    On a CPU a compiled loop takes the tokens where they are; elsewhere they are gathered for PyTorch's own attention.

    Args:
        qkv: queries, keys and values of all heads, (B, T, 3 C).
        padding: (3 C,), those of a place beyond the grid.
        bias: (heads, n, n), for each query and key.
        windows: of the T tokens.

    Returns:
        (B, T, C).
    """
    if applies(qkv):
        out: Tensor = _Attention.apply(qkv, padding.float(), bias.float(), windows)
        return out
    return _gathered(qkv, padding, bias, windows)


def _gathered(qkv: Tensor, padding: Tensor, bias: Tensor, windows: Windows) -> Tensor:
    places = torch.from_numpy(windows.places).to(qkv.device).long()
    regions = torch.from_numpy(windows.regions).to(qkv.device)
    b, count, channels = qkv.shape
    heads, n, _ = bias.shape
    tokens = torch.cat([qkv, padding.to(qkv).expand(b, 1, -1)], 1)[:, places]  # −1 is the last: padding
    q, k, v = tokens.view(b * len(places), n, 3, heads, -1).permute(2, 0, 3, 1, 4)
    mask = bias[None].to(q)
    if regions.numel():
        apart = (regions[:, :, None] != regions[:, None, :])[:, None].to(q)
        mask = mask + float(kernels.MASKED) * apart
        mask = mask.repeat(b, 1, 1, 1) if b > 1 else mask
    made = F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).reshape(b, -1, channels // 3)
    inside = (places.flatten() >= 0).nonzero()[:, 0]
    return made.new_zeros(b, count, channels // 3).index_copy(1, places.flatten()[inside], made[:, inside])


class _Attention(torch.autograd.Function):
    """`attend` on the CPU: no scores are kept for the gradient."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, padding: Tensor, bias: Tensor, windows: Windows) -> Tensor:
        qkv, flipped = qkv.contiguous(), bias.mT.contiguous()  # (head, key, query)
        heads, n, _ = bias.shape
        channels = qkv.shape[2] // 3
        out = qkv.new_empty(*qkv.shape[:2], channels)
        log_totals = torch.empty(len(qkv), len(windows.places), heads, n)
        shared = (padding.numpy(), windows.places, windows.regions, flipped.numpy(), (channels // heads) ** -0.5)
        for tokens, made, log_total in zip(rows_of(qkv), rows_of(out), log_totals.numpy(), strict=True):
            in_parts(filling(kernels.attend, (tokens, *shared), (made, log_total)), len(windows.places))
        ctx.save_for_backward(qkv, out, log_totals)
        ctx.windows, ctx.shared = windows, shared
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        qkv, out, log_totals = ctx.saved_tensors
        padding, _, _, bias, _ = ctx.shared
        of_qkv = torch.empty_like(qkv)
        of_padding, of_bias = np.zeros_like(padding), np.zeros_like(bias)
        arrays = (rows_of(qkv), rows_of(out), log_totals.numpy(), rows_of(gradient.contiguous()), rows_of(of_qkv))
        for tokens, made, log_total, slope, to in zip(*arrays, strict=True):
            sums: dict[int, tuple[np.ndarray, np.ndarray]] = {}
            given = (tokens, *ctx.shared, made, log_total, slope)

            def part(start: int, stop: int, given: Any = given, to: Any = to, sums: Any = sums) -> None:
                sums[start] = np.zeros_like(padding), np.zeros_like(bias)
                filling(kernels.attend_back, given, (to, *sums[start]))(start, stop)

            in_parts(part, len(ctx.windows.places))
            for start in sorted(sums):  # in an order that does not change
                of_padding += sums[start][0]
                of_bias += sums[start][1]
        return of_qkv, torch.from_numpy(of_padding), torch.from_numpy(of_bias).mT, None
