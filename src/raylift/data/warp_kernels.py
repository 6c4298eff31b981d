"""The inner loop of the augmentation, compiled by Numba: it samples a scan at the positions of a lattice."""

from __future__ import annotations

import numpy as np

from raylift.numerics.compiled import loop, part
from raylift.numerics.interpolation import interpolate

AIR_HU = np.float32(-1000)
INSIDE, NEAR = np.float32(0), np.float32(1)  # margins in voxels beyond the outermost centres


@loop
def sample_density(  # noqa: C901 - one compiled loop
    scan: np.ndarray, lattice: np.ndarray, start: int, stop: int, density: np.ndarray
) -> None:
    """Fill the slices start ... stop − 1 of a density.

    Args:
        scan: the scan (D, H, W) in Hounsfield units, int16 or float32, contiguous.
        lattice: index coordinates (kz, ky, kx, 3) = (x, y, z) in the scan, float32, at equidistant nodes, the first and
            last at the first and last voxel of `density`; positions between them are interpolated.
        start: the first slice.
        stop: the slice after the last.
        density: the array (d, h, w), float32, to fill with Hounsfield units + 1000, trilinear, 0 beside the scan; below
            and above the scan, its first and last slices are repeated.
    """
    depth, height, width = scan.shape
    d, h, w = density.shape
    kz, ky, kx, _ = lattice.shape
    last = np.float32(depth - 1) * np.float32(1 - 1e-6)
    nodes_z, shares_z = _nodes_before(d, kz)
    nodes_y, shares_y = _nodes_before(h, ky)
    nodes_x, shares_x = _nodes_before(w, kx)
    nodes = np.empty(kx, np.float32)
    across = np.empty((ky, 3, w), np.float32)  # index coordinates on a slice, at nodes along y and voxels along x
    x, y, z = np.empty(w, np.float32), np.empty(w, np.float32), np.empty(w, np.float32)  # index coordinates of a row
    offsets, pairs = np.empty(w, np.int64), np.empty((4, 2 * w), scan.dtype)
    for k in range(start, stop):
        for axis in range(3):
            for j in range(ky):
                for i in range(kx):
                    low, high = lattice[nodes_z[k], j, i, axis], lattice[nodes_z[k] + 1, j, i, axis]
                    nodes[i] = low + (high - low) * shares_z[k]
                for i in range(w):
                    low, high = nodes[nodes_x[i]], nodes[nodes_x[i] + 1]
                    across[j, axis, i] = low + (high - low) * shares_x[i]
        for j in range(h):
            before, after, share = across[nodes_y[j]], across[nodes_y[j] + 1], shares_y[j]
            for i in range(w):
                x[i] = before[0, i] + (after[0, i] - before[0, i]) * share
                y[i] = before[1, i] + (after[1, i] - before[1, i]) * share
                z[i] = min(max(before[2, i] + (after[2, i] - before[2, i]) * share, np.float32(0)), last)
            row = density[k, j]
            row[:] = 0
            if _count_inside(scan.shape, x, y, z, NEAR) == 0:
                continue
            begin, end = _inner_run(scan.shape, x, y, z)
            for indices in (range(begin), range(end, w)):
                for i in indices:
                    if -1 < x[i] < width and -1 < y[i] < height and -1 < z[i] < depth:
                        row[i] = at_edge(scan, x[i], y[i], z[i])
            inner = row[begin:end]
            interpolate(scan, x[begin:end], y[begin:end], z[begin:end], end - begin, offsets, pairs, inner)
            for i in range(end - begin):
                inner[i] -= AIR_HU


@part
def _nodes_before(count: int, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the node before each position, and the share of the way to the next node.

    The `count` positions are equidistant from the first node to the last.
    """
    node, share = np.empty(count, np.int32), np.empty(count, np.float32)
    for k in range(count):
        at = k * (nodes - 1) / max(count - 1, 1)
        node[k] = min(int(at), nodes - 2)
        share[k] = at - node[k]
    return node, share


@part
def _inner_run(shape: tuple[int, int, int], x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[int, int]:
    """Return begin and end of the first run of a row's positions that lie between the outermost voxels' centres."""
    depth, height, width = np.float32(shape[0] - 1), np.float32(shape[1] - 1), np.float32(shape[2] - 1)
    count = len(x)
    if _count_inside(shape, x, y, z, INSIDE) == count:
        return 0, count
    begin = 0
    while begin < count and not (0 <= x[begin] < width and 0 <= y[begin] < height and 0 <= z[begin] < depth):
        begin += 1
    end = begin
    while end < count and 0 <= x[end] < width and 0 <= y[end] < height and 0 <= z[end] < depth:
        end += 1
    return begin, end


@part
def _count_inside(shape: tuple[int, int, int], x: np.ndarray, y: np.ndarray, z: np.ndarray, margin: float) -> int:
    """Return how many of a row's positions lie between the outermost voxels' centres with a margin; vectorised."""
    last_x, last_y = np.float32(shape[2] - 1) + margin, np.float32(shape[1] - 1) + margin
    last_z = np.float32(shape[0] - 1) + margin
    inside = np.int32(0)
    for i in range(len(x)):
        along = (x[i] >= -margin) & (x[i] < last_x) & (y[i] >= -margin) & (y[i] < last_y)
        inside += np.int32(along & (z[i] >= -margin) & (z[i] < last_z))
    return inside


@part
def at_edge(scan: np.ndarray, x: float, y: float, z: float) -> float:
    """Return the density at index coordinates near the edge of a scan, where missing voxels count as air."""
    depth, height, width = scan.shape
    i, j, k = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
    total = 0.0
    for c in range(max(k, 0), min(k + 2, depth)):
        for b in range(max(j, 0), min(j + 2, height)):
            for a in range(max(i, 0), min(i + 2, width)):
                share = (1 - abs(x - a)) * (1 - abs(y - b)) * (1 - abs(z - c))
                total += (float(scan[c, b, a]) - AIR_HU) * share
    return total
