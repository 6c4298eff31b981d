"""The inner loops of instance and layer normalisation, compiled by Numba.

Maps are arrays (rows, columns) with the channels last in memory: a row holds the channels of one voxel, or of a few
neighbouring voxels so that it fills vector registers. Sums over `ROWS` rows are in single precision, sums of these in
double.
"""

from __future__ import annotations

import numpy as np

from raylift.numerics.bfloat16 import get, put
from raylift.numerics.compiled import loop

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
    maps: np.ndarray, mean: np.ndarray, scale: np.ndarray, slope: float, start: int, stop: int, out: np.ndarray
) -> None:
    """Fill `out` with the leaky ReLU of (x − mean) scale, for the rows start ... stop − 1."""
    slope = np.float32(slope)
    for row in range(start, stop):
        for c in range(maps.shape[1]):
            value = (get(maps, row, c) - mean[c]) * scale[c]
            put(out, row, c, max(value, slope * value))


@loop
def normalise_pair(
    maps: np.ndarray, residual: np.ndarray, mean: np.ndarray, scale: np.ndarray, slope: float, start: int, stop: int,
    out: np.ndarray,
) -> None:  # fmt: skip
    """Fill `out` with the leaky ReLU of the sum of two normalised maps; mean and scale are (2, columns)."""
    slope = np.float32(slope)
    for row in range(start, stop):
        for c in range(maps.shape[1]):
            value = (get(maps, row, c) - mean[0, c]) * scale[0, c] + (get(residual, row, c) - mean[1, c]) * scale[1, c]
            put(out, row, c, max(value, slope * value))


@loop
def add_gradient_sums(
    gradient: np.ndarray, out: np.ndarray, slope: float, start: int, stop: int, sums: np.ndarray
) -> None:
    """Add Σ g and Σ g x̂ to sums (2, columns), float64.

    g is the gradient before the leaky ReLU; the normalised map x̂ is recomputed from the output.
    """
    columns = out.shape[1]
    slope = np.float32(slope)
    one, two = np.empty(columns, np.float32), np.empty(columns, np.float32)
    for begin in range(start, stop, ROWS):
        one[:] = 0
        two[:] = 0
        for row in range(begin, min(begin + ROWS, stop)):
            for c in range(columns):
                y = get(out, row, c)
                g = get(gradient, row, c)
                one[c] += g if y > 0 else slope * g
                two[c] += g * y  # slope · g times y / slope
        for c in range(columns):
            sums[0, c] += one[c]
            sums[1, c] += two[c]


@loop
def put_gradient(
    gradient: np.ndarray, out: np.ndarray, factors: np.ndarray, slope: float, start: int, stop: int,
    grad_maps: np.ndarray,
) -> None:  # fmt: skip
    """Fill `grad_maps` with the gradient of `normalise`, a g + b x̂ + e, with factors (a, b, e), (3, columns)."""
    slope, steep = np.float32(slope), np.float32(1 / slope)
    for row in range(start, stop):
        for c in range(out.shape[1]):
            y = get(out, row, c)
            g = get(gradient, row, c)
            g, x = (g, y) if y > 0 else (slope * g, steep * y)
            put(grad_maps, row, c, factors[0, c] * g + factors[1, c] * x + factors[2, c])


@loop
def add_pair_gradient_sums(
    gradient: np.ndarray, out: np.ndarray, maps: np.ndarray, residual: np.ndarray, mean: np.ndarray, slope: float,
    start: int, stop: int, sums: np.ndarray,
) -> None:  # fmt: skip
    """Add Σ g, and Σ g (x − mean) of the maps and of the residual, to sums (3, columns), float64."""
    columns = maps.shape[1]
    slope = np.float32(slope)
    parts = np.empty((3, columns), np.float32)
    one, two, three = parts[0], parts[1], parts[2]
    for begin in range(start, stop, ROWS):
        parts[:] = 0
        for row in range(begin, min(begin + ROWS, stop)):
            for c in range(columns):
                g = get(gradient, row, c) * (np.float32(1) if get(out, row, c) > 0 else slope)
                one[c] += g
                two[c] += g * (get(maps, row, c) - mean[0, c])
                three[c] += g * (get(residual, row, c) - mean[1, c])
        sums += parts


@loop
def put_pair_gradients(
    gradient: np.ndarray, out: np.ndarray, maps: np.ndarray, residual: np.ndarray, mean: np.ndarray,
    factors: np.ndarray, slope: float, start: int, stop: int, grad_maps: np.ndarray, grad_residual: np.ndarray,
) -> None:  # fmt: skip
    """Fill in the gradients of `normalise_pair`, a g + b (x − mean) + e, with factors (2, 3, columns)."""
    slope = np.float32(slope)
    for row in range(start, stop):
        for c in range(maps.shape[1]):
            g = get(gradient, row, c) * (np.float32(1) if get(out, row, c) > 0 else slope)
            x, other = get(maps, row, c) - mean[0, c], get(residual, row, c) - mean[1, c]
            put(grad_maps, row, c, factors[0, 0, c] * g + factors[0, 1, c] * x + factors[0, 2, c])
            put(grad_residual, row, c, factors[1, 0, c] * g + factors[1, 1, c] * other + factors[1, 2, c])


@loop
def layer_norm(
    tokens: np.ndarray, weight: np.ndarray, bias: np.ndarray, start: int, stop: int, out: np.ndarray,
    moments: np.ndarray,
) -> None:  # fmt: skip
    """Normalise each row to mean 0 and variance 1, times weight plus bias; put mean and 1/σ into moments (rows, 2)."""
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
    grad_tokens: np.ndarray, sums: np.ndarray,
) -> None:  # fmt: skip
    """Fill in the gradient of `layer_norm`, and add those of weight and bias to sums (2, channels), float64."""
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
                put(grad_tokens, row, c, scale * (get(gradient, row, c) * weight[c] - plain - normal * crossed))
        for c in range(channels):
            sums[0, c] += one[c]
            sums[1, c] += two[c]
