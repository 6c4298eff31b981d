"""The projector's inner loops, compiled by Numba: sums along rays, and their adjoint."""

from __future__ import annotations

import numpy as np

from raylift.compiled import loop
from raylift.interpolation import at_edge, interpolate

# Positions this close to the outermost voxels' centres take the careful path: single precision cannot tell.
MARGIN = 2e-3

AT_A_TIME = 256  # positions of a ray: they stay in a core's cache


@loop
def _span(start: float, step: float, low: float, high: float, first: int, last: int) -> tuple[int, int]:
    """Of the planes first ... last − 1 those whose position start + k step lies between two bounds."""
    if abs(step) < 1e-12:
        return (first, last) if low < start < high else (first, first)
    one, other = (low - start) / step, (high - start) / step
    begin, end = max(min(one, other), first - 1.0), min(max(one, other), last + 1.0)
    return max(first, int(np.ceil(begin))), min(last, int(np.floor(end)) + 1)


@loop
def _spans(ray: np.ndarray, shape: tuple[int, int, int], count: int) -> tuple[int, int, int, int]:
    """Planes low ... high − 1 that meet the volume, and of these begin ... end − 1 between its outermost voxels."""
    low, high, begin, end = 0, count, 0, count
    for axis in range(3):
        size = shape[2 - axis]
        low, high = _span(ray[axis], ray[3 + axis], -1.0, size, low, high)
        begin, end = _span(ray[axis], ray[3 + axis], MARGIN, size - 1 - MARGIN, begin, end)
    high = max(low, high)
    begin = min(max(begin, low), high)
    return low, begin, min(max(end, begin), high), high


@loop
def _spread_edge(volume: np.ndarray, x: float, y: float, z: float, value: float) -> None:
    """The adjoint of `at_edge`."""
    depth, height, width = volume.shape
    i, j, k = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
    for c in range(max(k, 0), min(k + 2, depth)):
        for b in range(max(j, 0), min(j + 2, height)):
            for a in range(max(i, 0), min(i + 2, width)):
                volume[c, b, a] += value * (1 - abs(x - a)) * (1 - abs(y - b)) * (1 - abs(z - c))


@loop
def add_up(volume: np.ndarray, rays: np.ndarray, count: int, sums: np.ndarray) -> None:
    """Sum the trilinear interpolation of a volume over the planes that each ray crosses.

    Args:
        volume: (D, H, W), float32, in one piece; 0 outside.
        rays: (R, 6), float32: index coordinates (x, y, z) on the first plane, and the step to the next.
        count: of planes.
        sums: (R,), float32, to fill.
    """
    x, y = np.empty(AT_A_TIME, np.float32), np.empty(AT_A_TIME, np.float32)
    z, out = np.empty(AT_A_TIME, np.float32), np.empty(AT_A_TIME, np.float32)
    place, pairs = np.empty(AT_A_TIME, np.int64), np.empty((4, 2 * AT_A_TIME), np.float32)
    none = np.float32(0)
    for number in range(len(rays)):
        ray = rays[number]
        low, begin, end, high = _spans(ray, volume.shape, count)
        x0, y0, z0, dx, dy, dz = ray[0], ray[1], ray[2], ray[3], ray[4], ray[5]
        total = np.float32(0)
        for k in range(low, begin):
            t = np.float32(k)
            total += at_edge(volume, x0 + t * dx, y0 + t * dy, z0 + t * dz, none)
        for first in range(begin, end, AT_A_TIME):
            some = min(AT_A_TIME, end - first)
            for k in range(some):
                t = np.float32(np.int32(first + k))
                x[k], y[k], z[k] = x0 + t * dx, y0 + t * dy, z0 + t * dz
            interpolate(volume, x, y, z, some, place, pairs, out)
            for k in range(some):
                total += out[k]
        for k in range(end, high):
            t = np.float32(k)
            total += at_edge(volume, x0 + t * dx, y0 + t * dy, z0 + t * dz, none)
        sums[number] = total


@loop
def spread(volume: np.ndarray, rays: np.ndarray, count: int, sums: np.ndarray) -> None:
    """The adjoint of `add_up`: add each ray's value to the voxels that it meets.

    Args:
        volume: (D, H, W), float32, in one piece, added to.
        rays: as for `add_up`.
        count: of planes.
        sums: (R,), float32, values of the rays.
    """
    _, height, width = volume.shape
    flat = volume.reshape(-1)
    one = np.float32(1)
    for number in range(len(rays)):
        ray = rays[number]
        value = sums[number]
        low, begin, end, high = _spans(ray, volume.shape, count)
        x0, y0, z0, dx, dy, dz = ray[0], ray[1], ray[2], ray[3], ray[4], ray[5]
        for k in range(low, begin):
            t = np.float32(k)
            _spread_edge(volume, x0 + t * dx, y0 + t * dy, z0 + t * dz, value)
        for k in range(begin, end):
            t = np.float32(k)
            x, y, z = x0 + t * dx, y0 + t * dy, z0 + t * dz
            i, j, m = np.int32(x), np.int32(y), np.int32(z)
            u, v, w = x - np.float32(i), y - np.float32(j), z - np.float32(m)
            p = (np.int64(m) * height + j) * width + i
            q = p + height * width
            a, b = value * (one - v) * (one - w), value * v * (one - w)
            c, d = value * (one - v) * w, value * v * w
            flat[p] += a * (one - u)
            flat[p + 1] += a * u
            flat[p + width] += b * (one - u)
            flat[p + width + 1] += b * u
            flat[q] += c * (one - u)
            flat[q + 1] += c * u
            flat[q + width] += d * (one - u)
            flat[q + width + 1] += d * u
        for k in range(end, high):
            t = np.float32(k)
            _spread_edge(volume, x0 + t * dx, y0 + t * dy, z0 + t * dz, value)
