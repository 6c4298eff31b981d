"""Normalisations of channels-last maps with few passes over memory.

On a CPU they are compiled loops: PyTorch's instance normalisation copies channels-last maps to another layout and back,
its layer normalisation is slow on tokens of few channels, and each separate operation is another pass over memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from raylift.networks.layers import normalisation_kernels as kernels
from raylift.numerics.bfloat16 import rows_of
from raylift.numerics.compiled import applies, filling, in_parts

SLOPE = 0.01
LEAST_VALUES = 2**16  # fewest values worth starting a thread for
ROW_COLUMNS = 64  # a row holds the channels of as many neighbouring voxels as it takes to have this many columns


def normalised(maps: Tensor, residual: Tensor | None = None, both: bool = False) -> Tensor:
    """Return the leaky ReLU of instance-normalised maps (B, C, D, H, W), plus a residual if there is one.

    Instance normalisation gives each channel of each volume mean 0 and variance 1.

    Args:
        maps: (B, C, D, H, W).
        residual: maps of the same shape, added before the leaky ReLU.
        both: normalise the residual too.
    """
    if not applies(maps):
        out = F.instance_norm(maps, eps=kernels.EPSILON)
        if residual is not None:
            out = out + (F.instance_norm(residual, eps=kernels.EPSILON) if both else residual)
        return F.leaky_relu(out, SLOPE)
    if residual is None:
        alone: Tensor = _Normalised.apply(maps)
        return alone
    pair: Tensor = _NormalisedPair.apply(maps, residual.to(maps.dtype), both)
    return pair


class LayerNorm(nn.LayerNorm):
    """PyTorch's layer normalisation of the last axis, (..., C) → (..., C), faster on a CPU."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the normalised tokens (..., C)."""
        return layer_norm(tokens, self.weight, self.bias)


def layer_norm(tokens: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Return tokens (..., C), each normalised to mean 0 and variance 1, times a weight plus a bias (C,) if given."""
    channels = tokens.shape[-1]
    if not applies(tokens):
        return F.layer_norm(tokens, (channels,), weight, bias)
    one = tokens.new_ones(channels, dtype=torch.float32) if weight is None else weight.float()
    zero = tokens.new_zeros(channels, dtype=torch.float32) if bias is None else bias.float()
    out: Tensor = _LayerNorm.apply(tokens, one, zero)
    return out


class _Normalised(torch.autograd.Function):
    """`normalised` without a residual on the CPU; it stores the output only, since the leaky ReLU can be inverted."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        maps = _channels_last(maps)
        out = torch.empty_like(maps)
        ctx.scales = []
        for x, result in zip(_rows(maps), _rows(out), strict=True):
            mean, scale = _moments(x, maps.shape[1])
            inputs = (x, _tiled(mean, x), _tiled(scale, x), SLOPE)
            in_parts(filling(kernels.normalise, inputs, (result,)), len(x), LEAST_VALUES // x.shape[1])
            ctx.scales.append(scale)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        grad_maps, channels = torch.empty_like(out), out.shape[1]
        arrays = (_rows(_channels_last(gradient)), _rows(out), _rows(grad_maps))
        for scale, g, y, target in zip(ctx.scales, *arrays, strict=True):
            add = partial(kernels.add_gradient_sums, g, y, SLOPE)
            plain, crossed = _summed(add, y, channels) / (y.size // channels)
            # ∂L/∂x = scale (g − mean(g) − x̂ mean(g x̂))
            factors = np.stack([scale, -scale * crossed, -scale * plain])
            inputs = (g, y, _tiled(factors, y), SLOPE)
            in_parts(filling(kernels.put_gradient, inputs, (target,)), len(y), LEAST_VALUES // y.shape[1])
        return grad_maps


class _NormalisedPair(torch.autograd.Function):
    """`normalised` with a residual on the CPU."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, residual: Tensor, both: bool) -> Tensor:
        maps, residual = _channels_last(maps), _channels_last(residual)
        out, channels = torch.empty_like(maps), maps.shape[1]
        ctx.moments, ctx.both = [], both
        for x, other, result in zip(_rows(maps), _rows(residual), _rows(out), strict=True):
            identity = np.zeros(channels), np.ones(channels)
            pair = _moments(x, channels), _moments(other, channels) if both else identity
            mean, scale = (np.stack(values) for values in zip(*pair, strict=True))
            inputs = (x, other, _tiled(mean, x), _tiled(scale, x), SLOPE)
            in_parts(filling(kernels.normalise_pair, inputs, (result,)), len(x), LEAST_VALUES // x.shape[1])
            ctx.moments.append((mean, scale))
        ctx.save_for_backward(out, maps, residual if both else maps)  # an unnormalised residual is not needed again
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        out, maps, residual = ctx.saved_tensors
        grad_maps, grad_residual, channels = torch.empty_like(out), torch.empty_like(out), out.shape[1]
        arrays = (_rows(t) for t in (_channels_last(gradient), out, maps, residual, grad_maps, grad_residual))
        for (mean, scale), g, y, x, other, *targets in zip(ctx.moments, *arrays, strict=True):
            inputs = (g, y, x, other, _tiled(mean, x))
            add = partial(kernels.add_pair_gradient_sums, *inputs, SLOPE)
            plain, *crossed = _summed(add, x, channels, 3) / (x.size // channels)
            # ∂L/∂x = scale (g − mean(g) − x̂ mean(g x̂))
            factors = np.stack([scale, -(scale**3) * np.stack(crossed), -scale * plain], 1)
            if not ctx.both:
                factors[1] = [[1], [0], [0]]
            in_parts(
                filling(kernels.put_pair_gradients, (*inputs, _tiled(factors, x), SLOPE), tuple(targets)),
                len(x),
                LEAST_VALUES // x.shape[1],
            )
        return grad_maps, grad_residual, None


class _LayerNorm(torch.autograd.Function):
    """`layer_norm` on the CPU."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        tokens = tokens.contiguous()
        out = torch.empty_like(tokens)
        (x,), (result,) = rows_of(tokens.flatten(0, -2)[None]), rows_of(out.flatten(0, -2)[None])
        moments = np.empty((len(x), 2), np.float32)
        inputs = (x, weight.detach().numpy(), bias.detach().numpy())
        in_parts(filling(kernels.layer_norm, inputs, (result, moments)), len(x), LEAST_VALUES // x.shape[1])
        ctx.save_for_backward(tokens, weight)
        ctx.moments = moments
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens, weight = ctx.saved_tensors
        grad_tokens = torch.empty_like(tokens)
        (g,), (x,), (target,) = (
            rows_of(t.contiguous().flatten(0, -2)[None]) for t in (gradient.to(tokens.dtype), tokens, grad_tokens)
        )
        w, moments = weight.detach().numpy(), ctx.moments
        sums = _summed(
            lambda start, stop, part: kernels.layer_norm_back(g, x, w, moments, start, stop, target, part), x
        )
        grad_weight, grad_bias = torch.from_numpy(sums).to(weight.dtype)
        return grad_tokens, grad_weight, grad_bias


def _channels_last(maps: Tensor) -> Tensor:
    return maps.contiguous(memory_format=torch.channels_last_3d)


def _rows(maps: Tensor) -> list[np.ndarray]:
    """Return each volume of channels-last maps as an array whose rows hold the channels of a few voxels."""
    channels, voxels, per_row = maps.shape[1], maps[0, 0].numel(), 1
    while channels * per_row < ROW_COLUMNS and voxels % (2 * per_row) == 0:
        per_row *= 2
    return rows_of(maps.permute(0, 2, 3, 4, 1).reshape(len(maps), voxels // per_row, per_row * channels))


def _tiled(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return values (..., C) of the channels repeated for all columns of the rows, float32."""
    return np.tile(values, rows.shape[1] // values.shape[-1]).astype(np.float32)


def _moments(rows: np.ndarray, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and 1/σ of each channel, (channels,) each; the first voxel is subtracted before the sums."""
    voxel = rows[0, :channels]
    if voxel.dtype == np.uint16:
        voxel = (voxel.astype(np.uint32) << 16).view(np.float32)
    sums = _summed(partial(kernels.add_moments, rows, _tiled(voxel, rows)), rows, channels)
    mean, square = sums / (rows.size // channels)
    return mean + voxel, 1 / np.sqrt(np.maximum(square - mean**2, 0) + kernels.EPSILON)


def _summed(
    add: Callable[[int, int, np.ndarray], None], rows: np.ndarray, channels: int | None = None, count: int = 2
) -> np.ndarray:
    """Return the sums (count, channels) of a loop over rows, added part by part in a fixed order.

    Args:
        add: adds the sums over the rows `start` ... `stop` − 1 to an array (count, columns).
        rows: the array (rows, columns).
        channels: number of channels, of which a row holds several voxels'; the number of columns by default.
        count: number of sums.
    """
    parts: dict[int, np.ndarray] = {}

    def part(start: int, stop: int) -> None:
        parts[start] = np.zeros((count, rows.shape[1]))
        add(start, stop, parts[start])

    in_parts(part, len(rows), LEAST_VALUES // rows.shape[1])
    total = np.sum([parts[start] for start in sorted(parts)], 0)
    sums: np.ndarray = total.reshape(count, -1, channels or rows.shape[1]).sum(1)
    return sums
