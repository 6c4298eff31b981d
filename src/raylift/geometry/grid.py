"""The positions of a volume's voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raylift.geometry.plausible import FARTHEST, Point, plain_integer, plain_list, plain_number

Direction = tuple[float, float, float, float, float, float, float, float, float]

IDENTITY: Direction = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
MOST_VOXELS = 2**31  # of a grid, accepted from a file


@dataclass(frozen=True)
class VolumeGrid:
    """The positions of a volume's voxels in the patient.

    Example:
        >>> from raylift import VolumeGrid
        >>> VolumeGrid.cube(centre=(0, 0, 0), edge=320.0, voxels=64).spacing
        (5.0, 5.0, 5.0)

    Args:
        shape: number of voxels along the array axes (z, y, x).
        spacing: distance between voxel centres in mm along the index axes (x, y, z), in ITK's order.
        origin: world position (x, y, z) in mm of the centre of voxel (0, 0, 0).
        direction: 3×3 row-major cosines; column j is the world direction of index axis j in (x, y, z).
    """

    shape: tuple[int, int, int]
    spacing: Point
    origin: Point
    direction: Direction = IDENTITY

    @classmethod
    def cube(cls, centre: Sequence[float], edge: float, voxels: int) -> VolumeGrid:
        """Return an axis-aligned cube of `edge` mm with `voxels` per edge around the world point `centre`."""
        return cls.box(centre, (voxels,) * 3, edge / voxels)

    @classmethod
    def box(cls, centre: Sequence[float], shape: tuple[int, int, int], spacing: float) -> VolumeGrid:
        """Return an axis-aligned box of `shape` (z, y, x) isotropic voxels of `spacing` mm around `centre`."""
        x, y, z = (float(c) - spacing * (n - 1) / 2 for c, n in zip(centre, shape[::-1], strict=True))
        return cls(shape, (spacing,) * 3, (x, y, z))

    def part(self, low: Sequence[int], high: Sequence[int]) -> VolumeGrid:
        """Return the grid of the voxels with indices (x, y, z) from `low` up to, not including, `high`."""
        x, y, z = (self.index_to_world @ [*low, 1.0])[:3]
        width, height, depth = (int(end) - int(start) for start, end in zip(low, high, strict=True))
        return VolumeGrid((depth, height, width), self.spacing, (float(x), float(y), float(z)), self.direction)

    @property
    def index_to_world(self) -> np.ndarray:
        """The affine matrix (4, 4) from a voxel index (x, y, z, 1) to its world position in mm."""
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(self.direction, (3, 3)) * np.asarray(self.spacing)
        affine[:3, 3] = self.origin
        return affine

    @property
    def world_to_index(self) -> np.ndarray:
        """The affine matrix (4, 4) from a world position in mm to a continuous voxel index (x, y, z, 1)."""
        return np.linalg.inv(self.index_to_world)

    @property
    def centre(self) -> Point:
        """The world position (x, y, z) of the middle of the grid in mm."""
        middle = [(n - 1) / 2 for n in self.shape[::-1]] + [1.0]
        x, y, z = (self.index_to_world @ middle)[:3]
        return (float(x), float(y), float(z))

    @property
    def corners(self) -> np.ndarray:
        """The world positions (8, 3) in mm of the grid's corners, which are the outer corners of the corner voxels."""
        ends = [(-0.5, n - 0.5) for n in self.shape[::-1]]
        index = np.stack(np.meshgrid(*ends, indexing="ij"), -1).reshape(-1, 3)
        corners: np.ndarray = index @ self.index_to_world[:3, :3].T + self.index_to_world[:3, 3]
        return corners

    def points(self) -> np.ndarray:
        """Return the world positions (z, y, x, 3) in mm of all voxel centres, float64."""
        z, y, x = (np.arange(n, dtype=np.float64) for n in self.shape)
        index = np.stack(np.meshgrid(z, y, x, indexing="ij")[::-1], -1)
        points: np.ndarray = index @ self.index_to_world[:3, :3].T + self.index_to_world[:3, 3]
        return points

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description, which `from_dict` reads back."""
        return {
            "shape_zyx": list(self.shape),
            "spacing_xyz_mm": list(self.spacing),
            "origin_lps_mm": list(self.origin),
            "direction": list(self.direction),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> VolumeGrid:
        """Return the grid that `to_dict` described.

        Raises KeyError where an entry is missing.

        Raises:
            ValueError: an entry is malformed, the voxels are more than `MOST_VOXELS`, or the axes are not orthonormal.
        """
        z, y, x = (plain_integer(n, 1, MOST_VOXELS) for n in plain_list(data["shape_zyx"], 3))
        sx, sy, sz = (plain_number(s, 1e-3, FARTHEST) for s in plain_list(data["spacing_xyz_mm"], 3))
        ox, oy, oz = (plain_number(o, -FARTHEST, FARTHEST) for o in plain_list(data["origin_lps_mm"], 3))
        a, b, c, d, e, f, g, h, i = (plain_number(n, -2, 2) for n in plain_list(data.get("direction", IDENTITY), 9))
        if z * y * x > MOST_VOXELS:
            raise ValueError(f"{z} × {y} × {x} voxels are too many for a scan")
        axes = np.reshape([a, b, c, d, e, f, g, h, i], (3, 3))
        if not np.allclose(axes.T @ axes, np.eye(3), atol=1e-3):  # cosines may be rounded to three digits
            raise ValueError("a grid's direction needs perpendicular axes of length 1")
        return cls((z, y, x), (sx, sy, sz), (ox, oy, oz), (a, b, c, d, e, f, g, h, i))
