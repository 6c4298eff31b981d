"""The inner loop of the augmentation, compiled by Numba: a scan sampled where a lattice of positions says."""

from __future__ import annotations

import numpy as np

from raylift.compiled import loop

AIR = np.float32(-1000)


@loop
def _edge(scan: np.ndarray, x: float, y: float, z: float) -> float:
    """Density at a position where some of the eight voxels may be missing and count as air."""
    depth, height, width = scan.shape
    i, j, k = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
    total = np.float32(0)
    for c in range(max(k, 0), min(k + 2, depth)):
        for b in range(max(j, 0), min(j + 2, height)):
            for a in range(max(i, 0), min(i + 2, width)):
                total += (np.float32(scan[c, b, a]) - AIR) * (1 - abs(x - a)) * (1 - abs(y - b)) * (1 - abs(z - c))
    return total


@loop
def sample_density(scan: np.ndarray, lattice: np.ndarray, start: int, stop: int, density: np.ndarray) -> None:
    """Fill the slices start ... stop − 1 of a density.

    Args:
        scan: (D, H, W) in Hounsfield units, int16 or float32.
        lattice: (kz, ky, kx, 3), float32, index coordinates (x, y, z) in the scan at equidistant nodes, the first and
            last at the first and last voxel of `density`; positions between them are interpolated.
        start: first slice.
        stop: after the last slice.
        density: (d, h, w), float32, to fill with Hounsfield units + 1000, trilinear, 0 outside of the scan.
    """
    depth, height, width = scan.shape
    d, h, w = density.shape
    kz, ky, kx, _ = lattice.shape
    flat = scan.reshape(-1)
    one = np.float32(1)
    in_x, in_y, in_z = np.float32(width - 1), np.float32(height - 1), np.float32(depth - 1)
    nodes = np.empty((3, kx), np.float32)  # of a row: its index coordinates at the nodes
    position = np.empty((3, w), np.float32)  # and at the voxels
    node, share = np.empty(w, np.int32), np.empty(w, np.float32)
    for x in range(w):
        at = x * (kx - 1) / max(w - 1, 1)
        node[x] = min(int(at), kx - 2)
        share[x] = at - node[x]
    for z in range(start, stop):
        at = z * (kz - 1) / max(d - 1, 1)
        nz = min(int(at), kz - 2)
        fz = np.float32(at - nz)
        for y in range(h):
            at = y * (ky - 1) / max(h - 1, 1)
            ny = min(int(at), ky - 2)
            fy = np.float32(at - ny)
            for n in range(kx):
                for axis in range(3):
                    low = lattice[nz, ny, n, axis] * (one - fy) + lattice[nz, ny + 1, n, axis] * fy
                    high = lattice[nz + 1, ny, n, axis] * (one - fy) + lattice[nz + 1, ny + 1, n, axis] * fy
                    nodes[axis, n] = low * (one - fz) + high * fz
            for x in range(w):
                n = node[x]
                for axis in range(3):
                    position[axis, x] = nodes[axis, n] + (nodes[axis, n + 1] - nodes[axis, n]) * share[x]
            row = density[z, y]
            for x in range(w):
                px, py, pz = position[0, x], position[1, x], position[2, x]
                if 0 <= px < in_x and 0 <= py < in_y and 0 <= pz < in_z:
                    i, j, m = np.uint32(px), np.uint32(py), np.uint32(pz)
                    u, v, s = px - np.float32(i), py - np.float32(j), pz - np.float32(m)
                    p = np.uint64((m * np.uint32(height) + j) * np.uint32(width) + i)
                    q = p + np.uint64(width)
                    r = p + np.uint64(height * width)
                    t = r + np.uint64(width)
                    next_ = np.uint64(1)
                    a = np.float32(flat[p]) + (np.float32(flat[p + next_]) - np.float32(flat[p])) * u
                    b = np.float32(flat[q]) + (np.float32(flat[q + next_]) - np.float32(flat[q])) * u
                    e = np.float32(flat[r]) + (np.float32(flat[r + next_]) - np.float32(flat[r])) * u
                    f = np.float32(flat[t]) + (np.float32(flat[t + next_]) - np.float32(flat[t])) * u
                    a += (b - a) * v
                    e += (f - e) * v
                    row[x] = a + (e - a) * s - AIR
                elif -1 < px < width and -1 < py < height and -1 < pz < depth:
                    row[x] = _edge(scan, px, py, pz)
                else:
                    row[x] = 0
