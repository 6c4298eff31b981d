"""The projection operator A: the line integrals of a volume along the rays of cameras, and its adjoint.

    A = ProjectionOperator(grid, cameras)
    y = A(mu)      # (B, D, H, W) → (B, V, rows, columns)
    b = A.T(y)     # (B, V, rows, columns) → (B, D, H, W)

Gradients flow through both, and ⟨A μ, y⟩ = ⟨μ, Aᵀ y⟩ up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from raylift.drr import kernels
from raylift.geometry import Camera, VolumeGrid
from raylift.numerics.compiled import in_parts

# Positions sampled at a time, to bound memory: each needs 12 bytes, and a float per volume of the batch.
SAMPLES_AT_A_TIME = 1 << 24
MARGINS = [kernels.MARGIN] * 6
KEPT = 256  # cameras whose rays are cached, half a MB each at 128² pixels
MOST_KEPT_PIXELS = 256  # along the edge of a detector whose rays are cached


@dataclass(frozen=True)
class ViewRays:
    """The rays of one view through a grid.

    Args:
        rays: (rows, columns, 6): index coordinates (x, y, z) on the first plane, and the step to the next.
        lengths: (rows, columns): distance in mm between two planes along each ray.
        planes: number of planes.
    """

    rays: Tensor
    lengths: Tensor
    planes: int


class ProjectionOperator:
    """The linear operator A: line integrals ∫μ dl of volumes on one grid, for cameras with one number of pixels.

    The volume is the trilinear interpolation of its voxels, falling to 0 within one voxel outside of them.
    Each ray is sampled where it crosses equidistant planes perpendicular to the camera's axis (the
    composite midpoint rule), so all rays of a camera have the same number of samples.

    On a CPU, compiled loops (`drr.kernels`) compute the sums; `sample` does the same in PyTorch for other devices. The
    rays of a camera are computed once and shared by all operators.

    Example:
        >>> from raylift import Geometry, ProjectionOperator, View, VolumeGrid
        >>> grid = VolumeGrid.cube(centre=(0, 0, 0), edge=100.0, voxels=10)
        >>> A = ProjectionOperator(grid, Geometry.preset("chest-stand", pixels=3).cameras([View.parse("ap")]))
        >>> y = A(torch.full((1, 10, 10, 10), 0.02))  # 100 mm of water, 0.02 per mm
        >>> y.shape, round(float(y[0, 0, 1, 1]), 3)
        (torch.Size([1, 1, 3, 3]), 2.0)
        >>> A.T(y).shape
        torch.Size([1, 10, 10, 10])

    Args:
        grid: positions of the voxels, in any orientation.
        cameras: one per X-ray; all have the same numbers of rows and columns.
        step: greatest distance between planes in mm; the grid's smallest spacing by default.
    """

    def __init__(
        self,
        grid: VolumeGrid,
        cameras: Sequence[Camera],
        step: float | None = None,
    ) -> None:
        self.grid, self.cameras = grid, tuple(cameras)
        self._pixels = (self.cameras[0].rows, self.cameras[0].columns)
        if any((camera.rows, camera.columns) != self._pixels for camera in self.cameras):
            raise ValueError("the cameras of an operator need the same numbers of rows and columns")
        rays_of = _rays if max(self._pixels) <= MOST_KEPT_PIXELS else _rays.__wrapped__
        self._rays = [rays_of(grid, camera, step or min(grid.spacing)) for camera in self.cameras]

    @property
    def domain_shape(self) -> tuple[int, int, int]:
        """The shape (z, y, x) of the volumes."""
        return self.grid.shape

    @property
    def range_shape(self) -> tuple[int, int, int]:
        """The shape (views, rows, columns) of their X-rays."""
        return (len(self.cameras), *self._pixels)

    def __call__(self, mu: Tensor) -> Tensor:
        """Project: A μ.

        Args:
            mu: attenuation (B, D, H, W) = (B, z, y, x) in mm⁻¹ on the operator's grid.

        Returns:
            Line integrals (B, V, rows, columns), float32, dimensionless.

        Raises:
            ValueError: the volumes do not have the grid's shape.
        """
        if tuple(mu.shape[1:]) != self.domain_shape:
            raise ValueError(f"volume {tuple(mu.shape[1:])} does not fit the operator's grid {self.domain_shape}")
        projected: Tensor = _Linear.apply(mu.float(), self.project_now, self.back_project_now)
        return projected

    @property
    def T(self) -> Callable[[Tensor], Tensor]:  # noqa: N802 - the usual name of a transpose
        """The adjoint Aᵀ: line integrals (B, V, rows, columns) → volumes (B, D, H, W), the gradient of ⟨A μ, y⟩."""
        return self._back_project

    def _back_project(self, y: Tensor) -> Tensor:
        """Return Aᵀ y (B, D, H, W) of line integrals y (B, V, rows, columns), float32.

        Raises:
            ValueError: y is not of the operator's `range_shape`.
        """
        if tuple(y.shape[1:]) != self.range_shape:
            raise ValueError(f"X-rays {tuple(y.shape[1:])} are not {self.range_shape} (views, rows, columns)")
        volumes: Tensor = _Linear.apply(y.float(), self.back_project_now, self.project_now)
        return volumes

    def sample(self, mu: Tensor) -> Tensor:
        """Return A μ (B, V, rows, columns) of μ (B, D, H, W) in mm⁻¹, in PyTorch on any device."""
        size = torch.tensor(self.grid.shape[::-1], device=mu.device)
        # The volumes of the batch are the channels, since all share the same rays and so the same weights.
        volume, projected = mu.float()[None], []
        for view in self._rays:
            rays, lengths = view.rays.to(mu.device), view.lengths.to(mu.device)
            planes = torch.arange(view.planes, device=mu.device, dtype=torch.float32)
            total = torch.zeros((), device=mu.device)
            for numbers in planes.split(max(1, SAMPLES_AT_A_TIME // rays[..., 0].numel())):
                index = rays[..., :3] + numbers[:, None, None, None] * rays[..., 3:]
                positions = (index + 0.5) * (2 / size) - 1  # as grid_sample expects, with align_corners=False
                total = total + F.grid_sample(volume, positions[None], align_corners=False)[0].sum(1)
            projected.append(total * lengths)
        return torch.stack(projected, 1)

    def project_padded(self, padded: Tensor) -> Tensor:
        """Return A μ (B, V, rows, columns) of volumes on the CPU that have a margin of `kernels.MARGIN` voxels of 0."""
        projected = torch.empty(len(padded), *self.range_shape)
        for volume, images in zip(padded.numpy(), projected, strict=True):
            for view, image in zip(self._rays, images, strict=True):
                rays, sums = view.rays.flatten(0, 1).numpy(), image.flatten().numpy()
                in_parts(partial(_forward_project, volume, rays, view.planes, sums), len(rays))
                image *= view.lengths
        return projected

    def project_now(self, mu: Tensor) -> Tensor:
        """Return A μ (B, V, rows, columns) of μ (B, D, H, W) in mm⁻¹, float32, without a gradient."""
        return self.project_padded(F.pad(mu, MARGINS)) if mu.device.type == "cpu" else self.sample(mu)

    def back_project_now(self, y: Tensor) -> Tensor:
        """Return Aᵀ y (B, D, H, W) of line integrals y (B, V, rows, columns), float32, without a gradient."""
        if y.device.type != "cpu":
            mu = torch.zeros(len(y), *self.domain_shape, device=y.device, requires_grad=True)
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(self.sample(mu), mu, y)
            return gradient
        volumes = F.pad(torch.zeros(len(y), *self.domain_shape), MARGINS)
        values = torch.stack([y[:, k] * view.lengths for k, view in enumerate(self._rays)], 1).flatten(2).numpy()

        def back_project_some(start: int, stop: int) -> None:
            for volume, images in zip(volumes.numpy()[start:stop], values[start:stop], strict=True):
                for view, image in zip(self._rays, images, strict=True):
                    kernels.back_project(volume, view.rays.flatten(0, 1).numpy(), view.planes, image)

        in_parts(back_project_some, len(y))
        return F.pad(volumes, [-edge for edge in MARGINS])


class _Linear(torch.autograd.Function):
    """A linear map, whose gradient is its adjoint."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, apply: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.adjoint = adjoint
        return apply(x.detach())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.adjoint(gradients[0]), None, None


@lru_cache(KEPT)
def _rays(grid: VolumeGrid, camera: Camera, step: float) -> ViewRays:
    """Return the rays of a camera, with planes at most `step` mm apart."""
    to_index = grid.world_to_index
    start, end = camera.rays()
    # Distances from the source along the camera's axis between which the volume lies, with the voxel around it in which
    # the interpolation falls to 0.
    depth = (camera.source - grid.corners) @ camera.axis
    margin = max(grid.spacing)
    near, far = max(depth.min() - margin, 0.0), depth.max() + margin
    count = max(1, math.ceil((far - near) / step))
    part = (far - near) / count / camera.distance  # fraction of a ray between two planes
    along = (end - start) @ to_index[:3, :3].T
    first = start @ to_index[:3, :3].T + to_index[:3, 3] + (near / camera.distance + part / 2) * along
    rays = np.concatenate([first, part * along], -1)
    lengths = part * np.linalg.norm(end - start, axis=-1)
    return ViewRays(torch.from_numpy(rays).float(), torch.from_numpy(lengths).float(), count)


def _forward_project(
    volume: np.ndarray, rays: np.ndarray, planes: int, sums: np.ndarray, start: int, stop: int
) -> None:
    kernels.forward_project(volume, rays[start:stop], planes, sums[start:stop])
