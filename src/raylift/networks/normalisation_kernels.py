"""The inner loops of instance and layer normalisation, compiled by Numba.

Maps are arrays (rows, columns) whose channels are last in memory: a row holds the channels of one voxel, or of a few
voxels side by side, so that it fills vectors. Sums are in single precision over `ROWS` rows, in double over all.
"""

from __future__ import annotations

import numpy as np

from raylift.compiled import loop
from raylift.networks.bits import get, put

ROWS = 256
EPSILON = 1e-5


@loop
def add_moments(maps: np.ndarray, origin: np.ndarray, start: int, stop: int, sums: np.ndarray) -> None:
    """Add Σ (x − origin) and Σ (x − origin)² over the rows start ... stop − 1 to sums (2, columns), float64."""
    columns = maps.shape[1]
    one, two = np.empty(columns, np.float32), np.empty(columns, np.float32)
    for begin in range(start, stop, ROWS):
        one[:] = 0
        two[:] = 0
        for row in range(begin, min(begin + ROWS, stop)):
            for c in range(columns):
                value = get(maps, row, c) - origin[c]
                one[c] += value
                two[c] += value * value
        for c in range(columns):
            sums[0, c] += one[c]
            sums[1, c] += two[c]


@loop
def normalise(
    maps: np.ndarray, beside: np.ndarray, mean: np.ndarray, scale: np.ndarray, slope: float, start: int, stop: int,
    out: np.ndarray,
) -> None:  # fmt: skip
    """out = leaky ReLU of (x − mean) scale + beside, for the rows start ... stop − 1; `beside` may have no rows."""
    columns = maps.shape[1]
    slope = np.float32(slope)
    for row in range(start, stop):
        if len(beside) > 0:
            for c in range(columns):
                value = (get(maps, row, c) - mean[c]) * scale[c] + get(beside, row, c)
                put(out, row, c, max(value, slope * value))
        else:
            for c in range(columns):
                value = (get(maps, row, c) - mean[c]) * scale[c]
                put(out, row, c, max(value, slope * value))


@loop
def add_slopes(
    gradient: np.ndarray, out: np.ndarray, maps: np.ndarray, mean: np.ndarray, slope: float, start: int, stop: int,
    sums: np.ndarray,
) -> None:  # fmt: skip
    """Add Σ g and Σ g (x − mean) to sums (2, columns), float64; g is the gradient before the leaky ReLU."""
    columns = maps.shape[1]
    slope = np.float32(slope)
    one, two = np.empty(columns, np.float32), np.empty(columns, np.float32)
    for begin in range(start, stop, ROWS):
        one[:] = 0
        two[:] = 0
        for row in range(begin, min(begin + ROWS, stop)):
            for c in range(columns):
                g = get(gradient, row, c) * (np.float32(1) if get(out, row, c) > 0 else slope)
                one[c] += g
                two[c] += g * (get(maps, row, c) - mean[c])
        for c in range(columns):
            sums[0, c] += one[c]
            sums[1, c] += two[c]


@loop
def put_slopes(
    gradient: np.ndarray, out: np.ndarray, maps: np.ndarray, mean: np.ndarray, factors: np.ndarray, slope: float,
    start: int, stop: int, of_maps: np.ndarray, of_beside: np.ndarray,
) -> None:  # fmt: skip
    """The gradients of `normalise` for the rows start ... stop − 1; `of_beside` may have no rows.

    ∂L/∂x = a g + b (x − mean) + e with factors (a, b, e) of each column, (3, columns), and ∂L/∂beside = g.
    """
    columns = maps.shape[1]
    slope = np.float32(slope)
    a, b, e = factors[0], factors[1], factors[2]
    for row in range(start, stop):
        for c in range(columns):
            g = get(gradient, row, c) * (np.float32(1) if get(out, row, c) > 0 else slope)
            put(of_maps, row, c, a[c] * g + b[c] * (get(maps, row, c) - mean[c]) + e[c])
        if len(of_beside) > 0:
            for c in range(columns):
                put(of_beside, row, c, get(gradient, row, c) * (np.float32(1) if get(out, row, c) > 0 else slope))


@loop
def layer_norm(
    tokens: np.ndarray, weight: np.ndarray, bias: np.ndarray, start: int, stop: int, out: np.ndarray,
    moments: np.ndarray,
) -> None:  # fmt: skip
    """Each row to mean 0 and variance 1, times weight plus bias; mean and 1/σ go to moments (rows, 2)."""
    channels = tokens.shape[1]
    part = np.float32(1 / channels)
    for row in range(start, stop):
        total = np.float32(0)
        for c in range(channels):
            total += get(tokens, row, c)
        mean = total * part
        total = np.float32(0)
        for c in range(channels):
            value = get(tokens, row, c) - mean
            total += value * value
        scale = np.float32(1) / np.sqrt(total * part + np.float32(EPSILON))
        for c in range(channels):
            put(out, row, c, (get(tokens, row, c) - mean) * scale * weight[c] + bias[c])
        moments[row, 0] = mean
        moments[row, 1] = scale


@loop
def layer_norm_back(
    gradient: np.ndarray, tokens: np.ndarray, weight: np.ndarray, moments: np.ndarray, start: int, stop: int,
    of_tokens: np.ndarray, sums: np.ndarray,
) -> None:  # fmt: skip
    """The gradients of `layer_norm`; those of weight and bias are added to sums (2, channels), float64."""
    channels = tokens.shape[1]
    part = np.float32(1 / channels)
    one, two = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for begin in range(start, stop, ROWS):
        one[:] = 0
        two[:] = 0
        for row in range(begin, min(begin + ROWS, stop)):
            mean, scale = moments[row, 0], moments[row, 1]
            plain = crossed = np.float32(0)
            for c in range(channels):
                g = get(gradient, row, c)
                normal = (get(tokens, row, c) - mean) * scale
                one[c] += g * normal
                two[c] += g
                plain += g * weight[c]
                crossed += g * weight[c] * normal
            plain *= part
            crossed *= part
            for c in range(channels):
                normal = (get(tokens, row, c) - mean) * scale
                put(of_tokens, row, c, scale * (get(gradient, row, c) * weight[c] - plain - normal * crossed))
        for c in range(channels):
            sums[0, c] += one[c]
            sums[1, c] += two[c]
