"""Normalisations that pass over channels-last maps as seldom as can be.

On a CPU they are compiled loops: PyTorch's instance normalisation copies channels-last maps forth and back, its layer
normalisation is slow on tokens of few channels, and each of its operations goes through memory once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from raylift.compiled import applies, filling, in_parts
from raylift.networks import normalisation_kernels as kernels
from raylift.networks.bits import rows_of

SLOPE = 0.01
COLUMNS = 64  # channels of as many voxels side by side fill this many columns
NONE = np.empty((0, 0), np.float32)


def normalised(maps: Tensor, beside: Tensor | None = None, slope: float = SLOPE) -> Tensor:
    """Leaky ReLU of instance-normalised maps, plus others if given: each channel of each volume to mean 0, variance 1.

    Args:
        maps: (B, C, D, H, W).
        beside: as large; added before the leaky ReLU.
        slope: of negative values; 1 leaves them as they are.
    """
    if applies(maps):
        out: Tensor = _Normalised.apply(maps, None if beside is None else beside.to(maps.dtype), slope)
        return out
    out = F.instance_norm(maps, eps=kernels.EPSILON)
    return F.leaky_relu(out if beside is None else out + beside, slope)


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
    """`normalised` on the CPU."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, beside: Tensor | None, slope: float) -> Tensor:
        maps = _channels_last(maps)
        out = torch.empty_like(maps)
        besides = [NONE] * len(maps) if beside is None else _rows(_channels_last(beside))
        moments = []
        for x, other, made in zip(_rows(maps), besides, _rows(out), strict=True):
            origin = _origin(x, maps.shape[1])
            sums = _summed(lambda *part, x=x, origin=origin: kernels.add_moments(x, origin, *part), x, maps.shape[1])
            mean, square = sums / (x.size // maps.shape[1])
            scale = 1 / np.sqrt(np.maximum(square - mean**2, 0) + kernels.EPSILON)
            mean = mean + origin[: len(mean)]
            moments.append((mean, scale))
            given = (x, other, _tiled(mean, x), _tiled(scale, x), slope)
            in_parts(filling(kernels.normalise, given, (made,)), len(x))
        ctx.save_for_backward(maps, maps if slope == 1 else out)  # without the ReLU its sign does not matter
        ctx.moments, ctx.slope, ctx.alone = moments, slope, beside is None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        maps, out = ctx.saved_tensors
        of_maps = torch.empty_like(maps)
        of_beside = None if ctx.alone else torch.empty_like(maps)
        of_besides = [NONE] * len(maps) if of_beside is None else _rows(of_beside)
        slope, channels = ctx.slope, maps.shape[1]
        arrays = (_rows(_channels_last(gradient)), _rows(out), _rows(maps), _rows(of_maps), of_besides)
        for (mean, scale), g, y, x, to, to_beside in zip(ctx.moments, *arrays, strict=True):
            centred = (g, y, x, _tiled(mean, x))
            sums = _summed(lambda *part, given=centred: kernels.add_slopes(*given, slope, *part), x, channels)
            plain, crossed = sums / (x.size // channels)
            # ∂L/∂x = scale (g − mean(g) − x̂ mean(g x̂))
            factors = np.stack([scale, -(scale**3) * crossed, -scale * plain])
            given = (*centred, _tiled(factors, x), slope)
            in_parts(filling(kernels.put_slopes, given, (to, to_beside)), len(x))
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
        in_parts(filling(kernels.layer_norm, given, (made, moments)), len(x))
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


def _origin(rows: np.ndarray, channels: int) -> np.ndarray:
    """The first voxel's channels, for the columns of rows."""
    voxel = rows[0, :channels]
    if voxel.dtype == np.uint16:
        voxel = (voxel.astype(np.uint32) << 16).view(np.float32)
    return _tiled(voxel, rows)


def _summed(add: Callable[[int, int, np.ndarray], None], rows: np.ndarray, channels: int | None = None) -> np.ndarray:
    """Sums (2, channels) of a loop over rows that adds to them, part by part in an order that does not change."""
    parts: dict[int, np.ndarray] = {}

    def part(start: int, stop: int) -> None:
        parts[start] = np.zeros((2, rows.shape[1]))
        add(start, stop, parts[start])

    in_parts(part, len(rows))
    total = np.sum([parts[start] for start in sorted(parts)], 0)
    sums: np.ndarray = total.reshape(2, -1, channels or rows.shape[1]).sum(1)
    return sums
