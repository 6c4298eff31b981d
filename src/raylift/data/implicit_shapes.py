"""Painting a volume with implicit shapes, negative inside and about the distance in mm to the surface."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from scipy.interpolate import PchipInterpolator

from raylift.geometry import Point, VolumeGrid
from raylift.images.volume import AIR

Region = tuple[slice, ...]
Axes = tuple[np.ndarray, np.ndarray, np.ndarray]  # x, y, z in mm, shaped to broadcast to (z, y, x)
Vector = Sequence[float] | np.ndarray  # x, y, z in mm
Path = tuple[np.ndarray, np.ndarray]  # points (n, 3) in mm and radii (n,) in mm of a tube
UPRIGHT = np.eye(3)


class Scene:
    """The volume being painted, and the patient-centred coordinates of its voxels.

    Args:
        grid: where the voxels are in the world.
        centre: world position (x, y, z) of the patient's coordinate origin.
        stature: the patient's size along (x, y, z) relative to the chest the formulas describe.
    """

    def __init__(self, grid: VolumeGrid, centre: np.ndarray, stature: np.ndarray) -> None:
        self.spacing = grid.spacing[0]
        self.hu = np.full(grid.shape, AIR, np.float32)
        self.axes = [
            ((origin + self.spacing * np.arange(n) - c) / s).astype(np.float32)
            for n, origin, c, s in zip(grid.shape[::-1], grid.origin, centre, stature, strict=True)
        ]

    def window(self, low: Vector, high: Vector) -> tuple[Region, Axes]:
        """The voxels between two corners and a margin: as a region of the array, and as coordinates."""
        x, y, z = (
            slice(*np.searchsorted(axis, (a - self.spacing, b + self.spacing)).tolist())
            for axis, a, b in zip(self.axes, low, high, strict=True)
        )
        xs, ys, zs = self.axes
        return (z, y, x), (xs[x], ys[y][:, None], zs[z][:, None, None])

    def paint(self, surface: np.ndarray, hu: float | np.ndarray, region: Region = (slice(None),)) -> None:
        """Fill the inside of an implicit surface given on a region of the array."""
        part = self.hu[region]
        part += np.clip(0.5 - surface / self.spacing, 0, 1) * (hu - part)

    def tubes(self, paths: Sequence[Path], hu: float, stretch: Point = (1, 1, 1), inset: float = 0.0) -> None:
        """Fill the union of tubes along polylines, `inset` mm below their surface.

        Their section is a circle of the path's radius, stretched along x, y and z. A tube thinner than a
        voxel counts for the share of it that the tube's section fills.
        """
        cover = np.zeros_like(self.hu)
        scale = np.asarray(stretch, np.float32)
        for points, radii in paths:
            points, radii = points.astype(np.float32), radii.astype(np.float32)
            for a, b, ra, rb in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
                reach = max(ra, rb) * scale
                region, axes = self.window(np.minimum(a, b) - reach, np.maximum(a, b) + reach)
                # Distance to the segment where the stretched section is a circle again ...
                axis = (b - a) / scale
                offset = [(c - p) / s for c, p, s in zip(axes, a, scale, strict=True)]
                along = np.clip(dot(offset, axis) / np.maximum(axis @ axis, 1e-6), 0, 1)
                offset = [o - along * d for o, d in zip(offset, axis, strict=True)]
                distance = length(offset)
                # ... and its gradient, to get back to millimetres.
                slope = length([o / s for o, s in zip(offset, scale, strict=True)]) / distance
                radius = ra + (rb - ra) * along
                inside = np.clip(0.5 - ((distance - radius) / slope + inset) / self.spacing, 0, 1)
                inside *= np.clip(2 * radius / self.spacing, 0, 1) ** 2
                np.maximum(cover[region], inside, out=cover[region])
        self.hu += cover * (hu - self.hu)

    def texture(self, rng: np.random.Generator, grain: float) -> np.ndarray:
        """Smooth noise of about unit variance on all voxels, the same for every spacing; `grain` in mm."""
        extent = [(float(axis[0]), float(axis[-1])) for axis in self.axes[::-1]]
        noise = rng.standard_normal([int(520 // grain)] * 3, dtype=np.float32) * np.float32(1.8)
        for dimension, (low, high) in enumerate(extent):
            n = self.hu.shape[dimension]
            position = np.linspace(low, high, n, dtype=np.float32) / grain + noise.shape[dimension] / 2 - 0.5
            index = np.clip(position.astype(int), 0, noise.shape[dimension] - 2)
            share = np.expand_dims(position - index, [d for d in range(3) if d != dimension])
            noise = noise.take(index, dimension) * (1 - share) + noise.take(index + 1, dimension) * share
        return noise


def profile(at: Sequence[float], values: Vector) -> Callable[..., np.ndarray]:
    """A smooth curve through values, evaluated in single precision."""
    curve = PchipInterpolator(at, values)
    return lambda z: curve(z).astype(np.float32)


def join(a: np.ndarray, b: np.ndarray, rounding: float) -> np.ndarray:
    """Intersection of two shapes, its edge rounded over `rounding` mm; the union is -join(-a, -b)."""
    return np.maximum(a, b) + np.maximum(rounding - np.abs(a - b), 0) ** 2 / (4 * rounding)


def dot(a: Sequence[np.ndarray], b: Iterable[np.ndarray]) -> np.ndarray:
    """Scalar product of vectors given by components (x, y, z) that broadcast."""
    x, y, z = (p * q for p, q in zip(a, b, strict=True))
    return x + y + z


def length(a: Sequence[np.ndarray]) -> np.ndarray:
    """Length of vectors given by components."""
    return np.sqrt(dot(a, a)) + 1e-6  # never zero, to divide by


def ellipsoid(axes: Axes, centre: Vector, radii: Vector, frame: np.ndarray = UPRIGHT) -> np.ndarray:
    """An ellipsoid with its radii along the rows of `frame`."""
    centre, radii = np.asarray(centre, np.float32), np.asarray(radii, np.float32)
    offset = [a - c for a, c in zip(axes, centre, strict=True)]
    scaled = [dot(offset, row) / r for row, r in zip(frame.astype(np.float32), radii, strict=True)]
    level = length(scaled)  # 1 on the surface
    return level * (level - 1) / length([o / r for o, r in zip(scaled, radii, strict=True)])


def tube(points: Sequence[Vector] | np.ndarray, radii: Vector, steps: int = 20) -> Path:
    """A tube along a smooth curve through points (n, 3), with a radius for each."""
    at = np.linspace(0, 1, len(points))
    fine = np.linspace(0, 1, steps)
    return PchipInterpolator(at, np.asarray(points, float))(fine), PchipInterpolator(at, radii)(fine)


def tree(start: np.ndarray, ends: np.ndarray, thinnest: float, share: float = 0.45) -> Iterator[Path]:
    """Tubes that branch from `start` to all `ends` (n, 3), two by two along their widest spread.

    The radius follows Murray's law: a parent's radius cubed is the sum of its children's.
    """
    radius = thinnest * len(ends) ** (1 / 3)
    if len(ends) == 1:
        yield np.stack([start, ends[0]]), np.array([radius, radius])
        return
    fork = start + share * (ends.mean(0) - start)
    yield np.stack([start, fork]), np.array([radius, radius * 0.85])
    order = np.argsort(ends[:, ends.std(0).argmax()])
    for half in np.array_split(order, 2):
        yield from tree(fork, ends[half], thinnest, share)
