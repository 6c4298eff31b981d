"""Normalisations that pass over channels-last maps as seldom as can be.

On a CPU they are compiled loops: PyTorch's instance normalisation copies channels-last maps forth and back, its layer
normalisation is slow on tokens of few channels, and each of its operations goes through memory once more.
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
LEAST = 2**16  # values a thread begins for
COLUMNS = 64  # channels of as many voxels side by side fill this many columns


def normalised(maps: Tensor, beside: Tensor | None = None, both: bool = False) -> Tensor:
    """Leaky ReLU of instance-normalised maps, plus others if given: each channel of each volume to mean 0, variance 1.

    Args:
        maps: (B, C, D, H, W).
        beside: as large; added before the leaky ReLU.
        both: normalise those beside too.
    """
    if not applies(maps):
        out = F.instance_norm(maps, eps=kernels.EPSILON)
        if beside is not None:
            out = out + (F.instance_norm(beside, eps=kernels.EPSILON) if both else beside)
        return F.leaky_relu(out, SLOPE)
    if beside is None:
        alone: Tensor = _Normalised.apply(maps)
        return alone
    pair: Tensor = _NormalisedPair.apply(maps, beside.to(maps.dtype), both)
    return pair


class LayerNorm(nn.LayerNorm):
    """PyTorch's layer normalisation of the last axis, (..., C) → (..., C), faster on a CPU."""

    def forward(self, tokens: Tensor) -> Tensor:
        """As the class says."""
        return layer_norm(tokens, self.weight, self.bias)


def layer_norm(tokens: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Tokens (..., C), each to mean 0 and variance 1, times a weight plus a bias (C,) if given."""
    channels = tokens.shape[-1]
    if not applies(tokens):
        return F.layer_norm(tokens, (channels,), weight, bias)
    one = tokens.new_ones(channels, dtype=torch.float32) if weight is None else weight.float()
    zero = tokens.new_zeros(channels, dtype=torch.float32) if bias is None else bias.float()
    out: Tensor = _LayerNorm.apply(tokens, one, zero)
    return out


class _Normalised(torch.autograd.Function):
    """`normalised` maps alone on the CPU; only what comes out is kept, since the leaky ReLU can be undone."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        maps = _channels_last(maps)
        out = torch.empty_like(maps)
        ctx.scales = []
        for x, made in zip(_rows(maps), _rows(out), strict=True):
            mean, scale = _moments(x, maps.shape[1])
            given = (x, _tiled(mean, x), _tiled(scale, x), SLOPE)
            in_parts(filling(kernels.normalise, given, (made,)), len(x), LEAST // x.shape[1])
            ctx.scales.append(scale)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        of_maps, channels = torch.empty_like(out), out.shape[1]
        arrays = (_rows(_channels_last(gradient)), _rows(out), _rows(of_maps))
        for scale, g, y, to in zip(ctx.scales, *arrays, strict=True):
            add = partial(kernels.add_slopes, g, y, SLOPE)
            plain, crossed = _summed(add, y, channels) / (y.size // channels)
            # ∂L/∂x = scale (g − mean(g) − x̂ mean(g x̂))
            factors = np.stack([scale, -scale * crossed, -scale * plain])
            in_parts(filling(kernels.put_slopes, (g, y, _tiled(factors, y), SLOPE), (to,)), len(y), LEAST // y.shape[1])
        return of_maps


class _NormalisedPair(torch.autograd.Function):
    """`normalised` maps plus those beside on the CPU."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, beside: Tensor, both: bool) -> Tensor:
        maps, beside = _channels_last(maps), _channels_last(beside)
        out, channels = torch.empty_like(maps), maps.shape[1]
        ctx.moments, ctx.both = [], both
        for x, other, made in zip(_rows(maps), _rows(beside), _rows(out), strict=True):
            as_they_are = np.zeros(channels), np.ones(channels)
            pair = _moments(x, channels), _moments(other, channels) if both else as_they_are
            mean, scale = (np.stack(values) for values in zip(*pair, strict=True))
            given = (x, other, _tiled(mean, x), _tiled(scale, x), SLOPE)
            in_parts(filling(kernels.normalise_pair, given, (made,)), len(x), LEAST // x.shape[1])
            ctx.moments.append((mean, scale))
        ctx.save_for_backward(out, maps, beside if both else maps)  # else their values do not matter
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        out, maps, beside = ctx.saved_tensors
        of_maps, of_beside, channels = torch.empty_like(out), torch.empty_like(out), out.shape[1]
        arrays = (_rows(t) for t in (_channels_last(gradient), out, maps, beside, of_maps, of_beside))
        for (mean, scale), g, y, x, other, *to in zip(ctx.moments, *arrays, strict=True):
            given = (g, y, x, other, _tiled(mean, x))
            add = partial(kernels.add_pair_slopes, *given, SLOPE)
            plain, *crossed = _summed(add, x, channels, 3) / (x.size // channels)
            # ∂L/∂x = scale (g − mean(g) − x̂ mean(g x̂))
            factors = np.stack([scale, -(scale**3) * np.stack(crossed), -scale * plain], 1)
            if not ctx.both:
                factors[1] = [[1], [0], [0]]
            in_parts(
                filling(kernels.put_pair_slopes, (*given, _tiled(factors, x), SLOPE), tuple(to)),
                len(x),
                LEAST // x.shape[1],
            )
        return of_maps, of_beside, None


class _LayerNorm(torch.autograd.Function):
    """`layer_norm` on the CPU."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        tokens = tokens.contiguous()
        out = torch.empty_like(tokens)
        (x,), (made,) = rows_of(tokens.flatten(0, -2)[None]), rows_of(out.flatten(0, -2)[None])
        moments = np.empty((len(x), 2), np.float32)
        given = (x, weight.detach().numpy(), bias.detach().numpy())
        in_parts(filling(kernels.layer_norm, given, (made, moments)), len(x), LEAST // x.shape[1])
        ctx.save_for_backward(tokens, weight)
        ctx.moments = moments
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens, weight = ctx.saved_tensors
        of_tokens = torch.empty_like(tokens)
        (g,), (x,), (to,) = (
            rows_of(t.contiguous().flatten(0, -2)[None]) for t in (gradient.to(tokens.dtype), tokens, of_tokens)
        )
        w, moments = weight.detach().numpy(), ctx.moments
        sums = _summed(lambda start, stop, part: kernels.layer_norm_back(g, x, w, moments, start, stop, to, part), x)
        of_weight, of_bias = torch.from_numpy(sums).to(weight.dtype)
        return of_tokens, of_weight, of_bias


def _channels_last(maps: Tensor) -> Tensor:
    return maps.contiguous(memory_format=torch.channels_last_3d)


def _rows(maps: Tensor) -> list[np.ndarray]:
    """Each volume of channels-last maps as an array whose rows hold the channels of a few voxels."""
    channels, voxels, beside = maps.shape[1], maps[0, 0].numel(), 1
    while channels * beside < COLUMNS and voxels % (2 * beside) == 0:
        beside *= 2
    return rows_of(maps.permute(0, 2, 3, 4, 1).reshape(len(maps), voxels // beside, beside * channels))


def _tiled(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Values (..., C) of channels for the columns of rows."""
    return np.tile(values, rows.shape[1] // values.shape[-1]).astype(np.float32)


def _moments(rows: np.ndarray, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and 1/σ of each channel, (channels,) each; sums are taken about the first voxel's values."""
    voxel = rows[0, :channels]
    if voxel.dtype == np.uint16:
        voxel = (voxel.astype(np.uint32) << 16).view(np.float32)
    sums = _summed(partial(kernels.add_moments, rows, _tiled(voxel, rows)), rows, channels)
    mean, square = sums / (rows.size // channels)
    return mean + voxel, 1 / np.sqrt(np.maximum(square - mean**2, 0) + kernels.EPSILON)


def _summed(
    add: Callable[[int, int, np.ndarray], None], rows: np.ndarray, channels: int | None = None, count: int = 2
) -> np.ndarray:
    """Sums (count, channels) of a loop over rows that adds to them, part by part in an order that does not change."""
    parts: dict[int, np.ndarray] = {}

    def part(start: int, stop: int) -> None:
        parts[start] = np.zeros((count, rows.shape[1]))
        add(start, stop, parts[start])

    in_parts(part, len(rows), LEAST // rows.shape[1])
    total = np.sum([parts[start] for start in sorted(parts)], 0)
    sums: np.ndarray = total.reshape(count, -1, channels or rows.shape[1]).sum(1)
    return sums
