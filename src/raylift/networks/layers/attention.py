"""Self-attention in windows of a token grid (Liu et al. 2021), with padding at the grid's end and cyclic shifts."""

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
    """The partition of a grid's tokens into windows.

    Args:
        indices: (windows, n), int32: the index of each token in the grid, in C order; −1 for positions beyond the end
            of the grid.
        regions: (windows, n), int32: tokens of a window that are not neighbours in the grid, but were brought together
            by the cyclic shift, have different numbers; (windows, 0) if there is no shift.
    """

    indices: np.ndarray
    regions: np.ndarray


@lru_cache(maxsize=64)
def windows_of(grid: Size, window: Size, shift: Size) -> Windows:
    """Return the windows of a grid of tokens, after a cyclic shift towards its beginning.

    Args:
        grid: (D, H, W), the number of tokens along each axis; incomplete windows are padded at the grid's end.
        window: edges of the windows in tokens.
        shift: tokens by which the padded grid is shifted along each axis.
    """
    full = [-(-size // edge) * edge for size, edge in zip(grid, window, strict=True)]
    numbers = np.full(full, -1, np.int32)
    numbers[: grid[0], : grid[1], : grid[2]] = np.arange(np.prod(grid)).reshape(grid)
    numbers = np.roll(numbers, [-by for by in shift], (0, 1, 2))
    regions = np.zeros(full, np.int32)
    for axis, (size, edge, by) in enumerate(zip(full, window, shift, strict=True)):
        index = np.arange(size)
        part = (index >= size - edge).astype(np.int32) + (index >= size - by) if by else np.zeros(size, np.int32)
        regions = 3 * regions + part.reshape([-1 if k == axis else 1 for k in range(3)])
    regions = _cut(regions, window)
    return Windows(_cut(numbers, window), regions if any(shift) else regions[:, :0].copy())


def _cut(grid: np.ndarray, window: Size) -> np.ndarray:
    """Return a grid (D, H, W) cut into windows, (windows, n)."""
    d, h, w = (size // edge for size, edge in zip(grid.shape, window, strict=True))
    parts = grid.reshape(d, window[0], h, window[1], w, window[2]).transpose(0, 2, 4, 1, 3, 5)
    return np.ascontiguousarray(parts.reshape(d * h * w, -1))


@lru_cache
def relative_positions(window: int) -> Tensor:
    """Return the index of the relative position of each two tokens of a window, in C order: (window³, window³)."""
    positions = torch.stack(torch.meshgrid(*[torch.arange(window, device="cpu")] * 3, indexing="ij")).flatten(1)
    steps = positions[:, :, None] - positions[:, None, :] + window - 1
    edge = 2 * window - 1
    return (steps[0] * edge + steps[1]) * edge + steps[2]


def attend(qkv: Tensor, padding: Tensor, bias: Tensor, windows: Windows) -> Tensor:
    """Compute softmax(q kᵀ / √d + bias + mask) v in every window.

    On a CPU, a compiled loop reads the tokens in place; elsewhere they are gathered for PyTorch's own attention.

    Args:
        qkv: queries, keys and values of all heads, (B, T, 3 C).
        padding: (3 C,), query, key and value of a position beyond the grid.
        bias: (heads, n, n), for each query and key.
        windows: of the T tokens.

    Returns:
        The tokens (B, T, C).
    """
    if applies(qkv):
        out: Tensor = _Attention.apply(qkv, padding.float(), bias.float(), windows)
        return out
    return _gathered(qkv, padding, bias, windows)


def _gathered(qkv: Tensor, padding: Tensor, bias: Tensor, windows: Windows) -> Tensor:
    indices = torch.from_numpy(windows.indices).to(qkv.device).long()
    regions = torch.from_numpy(windows.regions).to(qkv.device)
    b, count, channels = qkv.shape
    heads, n, _ = bias.shape
    tokens = torch.cat([qkv, padding.to(qkv).expand(b, 1, -1)], 1)[:, indices]  # −1 is the last one, the padding
    q, k, v = tokens.view(b * len(indices), n, 3, heads, -1).permute(2, 0, 3, 1, 4)
    mask = bias[None].to(q)
    if regions.numel():
        different = (regions[:, :, None] != regions[:, None, :])[:, None].to(q)
        mask = mask + float(kernels.MASKED) * different
        mask = mask.repeat(b, 1, 1, 1) if b > 1 else mask
    values = F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).reshape(b, -1, channels // 3)
    inside = (indices.flatten() >= 0).nonzero()[:, 0]
    return values.new_zeros(b, count, channels // 3).index_copy(1, indices.flatten()[inside], values[:, inside])


class _Attention(torch.autograd.Function):
    """`attend` on the CPU, which stores no scores for the gradient."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, padding: Tensor, bias: Tensor, windows: Windows) -> Tensor:
        qkv, flipped = qkv.contiguous(), bias.mT.contiguous()  # (head, key, query)
        heads, n, _ = bias.shape
        channels = qkv.shape[2] // 3
        out = qkv.new_empty(*qkv.shape[:2], channels)
        log_totals = torch.empty(len(qkv), len(windows.indices), heads, n)
        shared = (padding.numpy(), windows.indices, windows.regions, flipped.numpy(), (channels // heads) ** -0.5)
        for tokens, result, log_total in zip(rows_of(qkv), rows_of(out), log_totals.numpy(), strict=True):
            in_parts(filling(kernels.attend, (tokens, *shared), (result, log_total)), len(windows.indices))
        ctx.save_for_backward(qkv, out, log_totals)
        ctx.windows, ctx.shared = windows, shared
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        qkv, out, log_totals = ctx.saved_tensors
        padding, _, _, bias, _ = ctx.shared
        grad_qkv = torch.empty_like(qkv)
        grad_padding, grad_bias = np.zeros_like(padding), np.zeros_like(bias)
        arrays = (rows_of(qkv), rows_of(out), log_totals.numpy(), rows_of(gradient.contiguous()), rows_of(grad_qkv))
        for tokens, result, log_total, grad_result, grad_tokens in zip(*arrays, strict=True):
            sums: dict[int, tuple[np.ndarray, np.ndarray]] = {}
            inputs = (tokens, *ctx.shared, result, log_total, grad_result)

            def part(start: int, stop: int, inputs: Any = inputs, target: Any = grad_tokens, sums: Any = sums) -> None:
                sums[start] = np.zeros_like(padding), np.zeros_like(bias)
                filling(kernels.attend_back, inputs, (target, *sums[start]))(start, stop)

            in_parts(part, len(ctx.windows.indices))
            for start in sorted(sums):  # in a fixed order, for reproducible sums
                grad_padding += sums[start][0]
                grad_bias += sums[start][1]
        return grad_qkv, torch.from_numpy(grad_padding), torch.from_numpy(grad_bias).mT, None
