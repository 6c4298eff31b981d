"""Augment a CT scan by a continuous warp of space, which can be evaluated on any grid.

X-rays are projected from the warped scan, so they and the target are a true pair. A warp maps a point of the new
patient to the point of the old one that has its tissue: rotation, scaling and shift about the isocentre, then a smooth
elastic displacement. The new scan ends in planes, like every scan, at the mean heights of the old one's warped ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation
from torch import Tensor

from raylift.config.recipe import AugmentationConfig
from raylift.data import warp_kernels as kernels
from raylift.geometry import VolumeGrid
from raylift.numerics.compiled import filling, in_parts

# Coordinates are computed at every fourth voxel and interpolated between; displacements are smooth over 50 mm.
LATTICE = 4
ELASTIC_SPACING = 60.0  # mm between control points
ELASTIC_REACH = 480.0  # mm, edge of the cube around the isocentre that control points cover
ENDS_MM = 200.0  # edge of the square around the long axis over which the ends of a scan are averaged


@dataclass(frozen=True)
class Warp:
    """A random warp.

    Args:
        matrix: the matrix (3, 3) from new to old positions relative to the isocentre, axes (x, y, z).
        shift: the vector (3,) in mm that is added to the old position.
        controls: the displacements (3, K, K, K) in mm of the control points, axes (component, z, y, x).
        gain: the factor of the attenuation.
        z_range: the heights between which the new scan is cut, in mm from the isocentre.
    """

    matrix: Tensor
    shift: Tensor
    controls: Tensor
    gain: float
    z_range: tuple[float, float]

    @classmethod
    def draw(cls, settings: AugmentationConfig, generator: torch.Generator) -> Warp:
        """Draw a warp; the same state of the generator gives the same warp.

        Returns:
            The warp.
        """

        def uniform(reach: float, count: int = 3) -> Tensor:
            return (torch.rand(count, generator=generator, dtype=torch.float64) * 2 - 1) * reach

        about_x, about_y, about_z = uniform(settings.rotation).tolist()
        scale = (1 + uniform(settings.scaling, 1)) * (1 + uniform(settings.scaling / 2))
        rotation = Rotation.from_euler("xyz", (about_x, -about_y, about_z), degrees=True)
        matrix = torch.from_numpy(rotation.as_matrix()) * scale
        shift = uniform(settings.shift)
        count = math.ceil(ELASTIC_REACH / ELASTIC_SPACING) + 1
        controls = torch.randn(3, count, count, count, generator=generator) * settings.elastic
        gain = 1 + float(uniform(settings.intensity, 1))
        cut = torch.rand(4, generator=generator)
        low = -160.0 + 60 * float(cut[1]) if cut[0] < settings.truncation else -math.inf
        high = 160.0 - 60 * float(cut[3]) if cut[2] < settings.truncation else math.inf
        return cls(matrix, shift, controls, gain, (low, high))

    def density(self, hu: Tensor, source: VolumeGrid, grid: VolumeGrid, isocentre: Tensor) -> Tensor:
        """Return the warped scan on a grid, as density in thousandths of water's.

        Args:
            hu: the scan (D, H, W) = (z, y, x) in Hounsfield units on `source`, at least -1000, int16 or float32.
            source: the scan's grid, axis-aligned.
            grid: the grid to fill, axis-aligned, with positions relative to the isocentre.
            isocentre: world point (3,) = (x, y, z) in mm in the source.

        Returns:
            Hounsfield units + 1000, (D, H, W) on `grid`; 0 beside the scan. Below and above the scan, its first and
            last slices are repeated: see `ends`.
        """
        nodes = [math.ceil(n / LATTICE) + 1 for n in grid.shape]
        z, y, x = (
            torch.linspace(o, o + s * (n - 1), k, dtype=torch.float64)
            for o, s, n, k in zip(grid.origin[::-1], grid.spacing[::-1], grid.shape, nodes, strict=True)
        )
        index = (self._old_positions(z, y, x) + isocentre - torch.tensor(source.origin)) / torch.tensor(source.spacing)
        density = (_sample if hu.device.type == "cpu" else _sample_torch)(hu, index.float(), grid.shape)
        density *= self.gain
        return density

    def ends(self, source: VolumeGrid, isocentre: Tensor) -> tuple[float, float]:
        """Return the heights in mm from the isocentre between which the new scan lies: `z_range`, or less.

        The warp bends the old scan's ends; the new scan ends at their mean heights over `ENDS_MM`.
        """
        z = torch.linspace(-ELASTIC_REACH, ELASTIC_REACH, 97, dtype=torch.float64)
        across = torch.linspace(-ENDS_MM / 2, ENDS_MM / 2, 5, dtype=torch.float64)
        heights = self._old_positions(z, across, across)[..., 2].mean((1, 2)) + isocentre[2]
        edges = source.origin[2] + source.spacing[2] * (np.array([0, source.shape[0]]) - 0.5)
        low, high = np.interp(edges, np.maximum.accumulate(heights.numpy()), z.numpy())
        return max(float(low), self.z_range[0]), min(float(high), self.z_range[1])

    def _old_positions(self, z: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Return the old positions (z, y, x, 3) of new ones, both relative to the isocentre, in mm."""
        new = torch.stack(torch.meshgrid(z, y, x, indexing="ij")[::-1], -1)
        return new @ self.matrix.T + self.shift + _spline(self.controls, z, y, x)


def scan_coverage(grid: VolumeGrid, ends: tuple[float, float]) -> Tensor:
    """Return the share (D, 1, 1) of each slice of an axis-aligned grid that lies between two heights in mm."""
    low, high = ends
    half = grid.spacing[2] / 2
    heights = grid.origin[2] + grid.spacing[2] * torch.arange(grid.shape[0])
    inside = (heights + half).clamp(max=high) - (heights - half).clamp(min=low)
    return (inside / grid.spacing[2]).clamp(0, 1)[:, None, None]


def _sample(hu: Tensor, index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return HU + 1000 of a scan on a grid, computed on the CPU; 0 beside the scan.

    Below and above the scan, its first and last slices are repeated.

    Args:
        hu: the scan (D, H, W) in Hounsfield units.
        index: the index coordinates (kz, ky, kx, 3) = (x, y, z) in the scan of a lattice over the grid.
        shape: the shape (d, h, w) of the grid.
    """
    density = torch.empty(shape)
    in_parts(filling(kernels.sample_density, (hu.numpy(), index.numpy()), (density.numpy(),)), shape[0])
    return density


def _sample_torch(hu: Tensor, index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the same as `_sample`, computed by PyTorch on any device."""
    size = torch.tensor(hu.shape[::-1])
    lattice = ((index + 0.5) * 2 / size - 1).to(hu.device)
    coordinates = F.interpolate(
        lattice.permute(3, 0, 1, 2)[None], size=shape, mode="trilinear", align_corners=True
    ).permute(0, 2, 3, 4, 1)
    last = 1 - 1 / size[2]
    coordinates = torch.cat([coordinates[..., :2], coordinates[..., 2:].clamp(-last, last)], -1)
    # Values are relative to air, so that the padding's 0 means air.
    density: Tensor = F.grid_sample(hu.float()[None, None] + 1000, coordinates, align_corners=False)[0, 0]
    return density


def _spline(controls: Tensor, z: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Return the displacement (z, y, x, 3) in mm: control points smoothed by Gaussians of half their distance."""
    count = controls.shape[-1]
    knots = (torch.arange(count, dtype=torch.float64) - (count - 1) / 2) * ELASTIC_SPACING

    def weights(positions: Tensor) -> Tensor:
        bell = torch.exp(-0.5 * ((positions[:, None] - knots) / (ELASTIC_SPACING / 2)) ** 2)
        weight: Tensor = bell / bell.norm(dim=1, keepdim=True).clamp_min(1e-6)  # keeps the standard deviation
        return weight

    return torch.einsum("czyx,Zz,Yy,Xx->ZYXc", controls.double(), weights(z), weights(y), weights(x))
