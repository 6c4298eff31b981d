"""Draw implicit shapes into a volume; a shape's value is about the distance in mm to its surface, negative inside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from scipy.interpolate import PchipInterpolator

from raylift.geometry import Point, VolumeGrid
from raylift.images.volume import AIR

Region = tuple[slice, ...]
Axes = tuple[np.ndarray, np.ndarray, np.ndarray]  # x, y, z in mm, shaped to broadcast to (z, y, x)
Vector = Sequence[float] | np.ndarray  # x, y, z in mm
Tube = tuple[np.ndarray, np.ndarray]  # points (n, 3) in mm of the axis, and radii (n,) in mm
UPRIGHT = np.eye(3)


class Scene:
    """A volume to draw shapes into, and the patient-centred coordinates of its voxels.

    Args:
        grid: the positions of the voxels in the world.
        centre: world position (x, y, z) in mm of the origin of the patient's coordinates.
        stature: the patient's size along (x, y, z) relative to the chest that the formulas describe.
    """

    def __init__(self, grid: VolumeGrid, centre: np.ndarray, stature: np.ndarray) -> None:
        self.spacing = grid.spacing[0]
        self.hu = np.full(grid.shape, AIR, np.float32)
        self.axes = [
            ((origin + self.spacing * np.arange(n) - c) / s).astype(np.float32)
            for n, origin, c, s in zip(grid.shape[::-1], grid.origin, centre, stature, strict=True)
        ]

    def window(self, low: Vector, high: Vector) -> tuple[Region, Axes]:
        """Return the voxels between two corners, with a margin of one voxel.

        Returns:
            Their region of the array, and their coordinates.
        """
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

    def tubes(self, tubes: Sequence[Tube], hu: float, stretch: Point = (1, 1, 1), inset: float = 0.0) -> None:
        """Fill the union of tubes along polylines.

        A tube's section is a circle of its radius, stretched along x, y and z. A tube that is thinner than a voxel
        fills the share of the voxel that its section covers.

        Args:
            tubes: the tubes.
            hu: the value of the filling.
            stretch: the factors by which sections are stretched along x, y and z.
            inset: the depth in mm below the tubes' surface from which they are filled.
        """
        cover = np.zeros_like(self.hu)
        scale = np.asarray(stretch, np.float32)
        for points, radii in tubes:
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
        """Return smooth noise (z, y, x) of about unit variance and `grain` mm, the same for every spacing."""
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
    """Return a smooth curve through values as a function in single precision."""
    curve = PchipInterpolator(at, values)
    return lambda z: curve(z).astype(np.float32)


def join(a: np.ndarray, b: np.ndarray, rounding: float) -> np.ndarray:
    """Return the intersection of two shapes, its edge rounded over `rounding` mm; the union is -join(-a, -b)."""
    shape: np.ndarray = np.maximum(a, b) + np.maximum(rounding - np.abs(a - b), 0) ** 2 / (4 * rounding)
    return shape


def dot(a: Sequence[np.ndarray], b: Iterable[np.ndarray]) -> np.ndarray:
    """Return the scalar product of vectors given by components (x, y, z) that broadcast."""
    x, y, z = (p * q for p, q in zip(a, b, strict=True))
    product: np.ndarray = x + y + z
    return product


def length(a: Sequence[np.ndarray]) -> np.ndarray:
    """Return the length of vectors given by components (x, y, z), and never zero, so that it may be a divisor."""
    norm: np.ndarray = np.sqrt(dot(a, a)) + 1e-6
    return norm


def ellipsoid(axes: Axes, centre: Vector, radii: Vector, frame: np.ndarray = UPRIGHT) -> np.ndarray:
    """Return an ellipsoid with its radii in mm along the rows of `frame`."""
    centre, radii = np.asarray(centre, np.float32), np.asarray(radii, np.float32)
    offset = [a - c for a, c in zip(axes, centre, strict=True)]
    scaled = [dot(offset, row) / r for row, r in zip(frame.astype(np.float32), radii, strict=True)]
    level = length(scaled)  # 1 on the surface
    shape: np.ndarray = level * (level - 1) / length([o / r for o, r in zip(scaled, radii, strict=True)])
    return shape


def tube(points: Sequence[Vector] | np.ndarray, radii: Vector, steps: int = 20) -> Tube:
    """Return a tube along a smooth curve through points (n, 3) in mm, with a radius in mm for each."""
    at = np.linspace(0, 1, len(points))
    fine = np.linspace(0, 1, steps)
    return PchipInterpolator(at, np.asarray(points, float))(fine), PchipInterpolator(at, radii)(fine)


def tree(start: np.ndarray, ends: np.ndarray, thinnest: float, share: float = 0.45) -> Iterator[Tube]:
    """Yield the tubes of a tree that branches from `start` to all `ends` (n, 3).

    A branch divides in two across the axis along which its ends are spread most. The radius follows Murray's law: a
    parent's radius cubed is the sum of its children's.

    Args:
        start: the point (3,) in mm where the tree begins.
        ends: the points (n, 3) in mm where its branches end.
        thinnest: the radius in mm of the last branches.
        share: the distance of a fork from the start of its branch, as a share of that to the middle of the ends.

    Yields:
        Each branch.
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
