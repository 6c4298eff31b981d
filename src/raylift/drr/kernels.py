"""The projector's inner loops, compiled by Numba: sums along rays, and the adjoint."""

from __future__ import annotations

import numpy as np

from raylift.numerics.compiled import loop, part
from raylift.numerics.interpolation import interpolate

# Voxels of value 0 around a volume. They ensure that every position at which the interpolation is not 0 lies between
# eight voxels, even after rounding in single precision.
MARGIN = 2

AT_A_TIME = 256  # positions of a ray per pass, few enough to stay in a core's cache


@part
def _span(ray: np.ndarray, shape: tuple[int, int, int], count: int) -> tuple[int, int]:
    """Return the range of planes, of 0 ... count − 1, on which a ray is in the volume or less than a voxel outside."""
    begin, end = 0, count
    for axis in range(3):
        start, step, size = ray[axis], ray[3 + axis], shape[2 - axis] - 2 * MARGIN
        if abs(step) < 1e-12:
            if not -1 < start < size:
                return 0, 0
            continue
        one, other = (-1 - start) / step, (size - start) / step
        low, high = max(min(one, other), begin - 1.0), min(max(one, other), end + 1.0)
        begin, end = max(begin, int(np.ceil(low))), min(end, int(np.floor(high)) + 1)
    return begin, end


@loop
def forward_project(volume: np.ndarray, rays: np.ndarray, count: int, sums: np.ndarray) -> None:
    """Sum the trilinear interpolation of a volume over the planes that each ray crosses.

    Args:
        volume: (D, H, W), float32, contiguous, including its margin of 0.
        rays: (R, 6), float32: index coordinates (x, y, z) on the first plane, in the volume without its margin, and the
            step to the next plane.
        count: number of planes.
        sums: (R,), float32, filled with the sums.
    """
    x, y = np.empty(AT_A_TIME, np.float32), np.empty(AT_A_TIME, np.float32)
    z, values = np.empty(AT_A_TIME, np.float32), np.empty(AT_A_TIME, np.float32)
    index, pairs = np.empty(AT_A_TIME, np.int64), np.empty((4, 2 * AT_A_TIME), np.float32)
    edge = np.float32(MARGIN)
    for number in range(len(rays)):
        ray = rays[number]
        begin, end = _span(ray, volume.shape, count)
        x0, y0, z0, dx, dy, dz = ray[0] + edge, ray[1] + edge, ray[2] + edge, ray[3], ray[4], ray[5]
        total = np.float32(0)
        for first in range(begin, end, AT_A_TIME):
            some = min(AT_A_TIME, end - first)
            for k in range(some):
                t = np.float32(np.int32(first + k))
                x[k], y[k], z[k] = x0 + t * dx, y0 + t * dy, z0 + t * dz
            interpolate(volume, x, y, z, some, index, pairs, values)
            for k in range(some):
                total += values[k]
        sums[number] = total


@loop
def back_project(volume: np.ndarray, rays: np.ndarray, count: int, sums: np.ndarray) -> None:
    """Add each ray's value to the voxels that it meets, the adjoint of `forward_project`.

    Args:
        volume: (D, H, W), float32, contiguous, including its margin; the values are added to it.
        rays: as for `forward_project`.
        count: number of planes.
        sums: (R,), float32, the values of the rays.
    """
    _, height, width = volume.shape
    flat = volume.reshape(-1)
    one, edge = np.float32(1), np.float32(MARGIN)
    for number in range(len(rays)):
        ray = rays[number]
        value = sums[number]
        begin, end = _span(ray, volume.shape, count)
        x0, y0, z0, dx, dy, dz = ray[0] + edge, ray[1] + edge, ray[2] + edge, ray[3], ray[4], ray[5]
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
