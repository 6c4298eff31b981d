"""Differentiable cone-beam projection: the line integrals of a volume along the rays of an X-ray unit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from raylift.drr import kernels
from raylift.geometry import Geometry, View, VolumeGrid
from raylift.images.hounsfield import hu_to_mu
from raylift.images.volume import Volume
from raylift.numerics.compiled import in_parts

# Positions sampled at a time: bounds memory (a position costs 12 bytes and a float per volume of the batch).
SAMPLES_AT_A_TIME = 1 << 24
EDGES = [kernels.MARGIN] * 6


class Projector(nn.Module):
    """Line integrals ∫μ dl of volumes that share a grid, for views that share an isocentre.

    The volume is read as the trilinear interpolation of its voxels, falling to 0 within one voxel outside of them.
    Each ray is sampled where it crosses equidistant planes at right angles to the view's axis (the composite
    midpoint rule), so all rays of a view use the same number of samples. Gradients flow to the volume.

    On a CPU the sums are compiled loops (`drr.kernels`); `sample` is the same in PyTorch, for other devices and
    precisions.

    Args:
        grid: positions of the voxels, any orientation.
        geometry: X-ray unit.
        views: directions of looking.
        isocentre: world point (x, y, z) in mm that the unit turns around.
        step: distance of the planes in mm; the grid's smallest spacing by default.
    """

    rays: Tensor
    lengths: Tensor

    def __init__(
        self,
        grid: VolumeGrid,
        geometry: Geometry,
        views: Sequence[View],
        isocentre: Sequence[float],
        step: float | None = None,
    ) -> None:
        super().__init__()
        self.grid = grid
        to_index = grid.world_to_index
        self.counts: list[int] = []
        rays, lengths = [], []
        for view in views:
            start, end = geometry.rays(view, isocentre)
            # Depth of the volume along the view's axis as a fraction of the way from source to detector, with
            # the voxel around it in which the interpolation falls to 0.
            depth = (geometry.source(view, isocentre) - grid.corners) @ view.towards_source
            margin = max(grid.spacing)
            near, far = max(depth.min() - margin, 0.0), depth.max() + margin
            count = max(1, math.ceil((far - near) / (step or min(grid.spacing))))
            part = (far - near) / count / geometry.sdd  # of a ray, between two planes
            along = (end - start) @ to_index[:3, :3].T
            first = start @ to_index[:3, :3].T + to_index[:3, 3] + (near / geometry.sdd + part / 2) * along
            self.counts.append(count)
            rays.append(np.concatenate([first, part * along], -1))
            lengths.append(part * np.linalg.norm(end - start, axis=-1))
        # (V, rows, columns, 6): index coordinates (x, y, z) on the first plane, and the step to the next.
        self.register_buffer("rays", torch.from_numpy(np.stack(rays)).float(), persistent=False)
        # (V, rows, columns): mm between two planes.
        self.register_buffer("lengths", torch.from_numpy(np.stack(lengths)).float(), persistent=False)

    def forward(self, mu: Tensor) -> Tensor:
        """Project.

        Args:
            mu: attenuation (B, D, H, W) = (B, z, y, x) in mm⁻¹ on the projector's grid.

        Returns:
            Line integrals (B, V, rows, columns), no unit.
        """
        if tuple(mu.shape[1:]) != self.grid.shape:
            raise ValueError(f"volume {tuple(mu.shape[1:])} does not fit the projector's grid {self.grid.shape}")
        if mu.device.type == "cpu" and mu.dtype == torch.float32:
            sums: Tensor = _Sums.apply(mu, self)
        else:
            sums = self.sample(mu)
        return sums * self.lengths

    def sample(self, mu: Tensor) -> Tensor:
        """Sums over the planes, (B, V, rows, columns), in PyTorch on any device."""
        size = torch.tensor(self.grid.shape[::-1], device=mu.device)
        # The volumes of the batch ride as channels: the rays are the same for all, so one set of weights serves.
        volume, sums = mu.float()[None], []
        for rays, count in zip(self.rays, self.counts, strict=True):
            planes = torch.arange(count, device=mu.device, dtype=torch.float32)
            total = torch.zeros((), device=mu.device)
            for some in planes.split(max(1, SAMPLES_AT_A_TIME // rays[..., 0].numel())):
                index = rays[..., :3] + some[:, None, None, None] * rays[..., 3:]
                positions = (index + 0.5) * (2 / size) - 1  # grid_sample's, align_corners=False
                total = total + F.grid_sample(volume, positions[None], align_corners=False)[0].sum(1)
            sums.append(total)
        return torch.stack(sums, 1)


class _Sums(torch.autograd.Function):
    """Sums of volumes (B, D, H, W) over the planes of a projector's views, and their adjoint, on the CPU."""

    @staticmethod
    def forward(ctx: Any, mu: Tensor, projector: Projector) -> Tensor:
        ctx.projector = projector
        return _sums(F.pad(mu.detach(), EDGES), projector)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        projector, values = ctx.projector, slopes[0].flatten(2).contiguous().numpy()
        gradient = F.pad(torch.zeros(len(values), *projector.grid.shape), EDGES)
        volumes = gradient.numpy()

        def spread_one(number: int, stop: int) -> None:
            for k in range(number, stop):
                for rays, count, value in zip(
                    projector.rays.flatten(1, 2).numpy(), projector.counts, values[k], strict=True
                ):
                    kernels.spread(volumes[k], rays, count, value)

        in_parts(spread_one, len(volumes))
        return F.pad(gradient, [-edge for edge in EDGES]), None


def _sums(padded: Tensor, projector: Projector) -> Tensor:
    """Sums (B, V, rows, columns) over the planes of a projector's views of volumes with a margin."""
    sums = torch.empty(len(padded), *projector.lengths.shape)
    for volume, out in zip(padded.numpy(), sums.flatten(2).numpy(), strict=True):
        for rays, count, values in zip(projector.rays.flatten(1, 2).numpy(), projector.counts, out, strict=True):
            in_parts(partial(_add_up, volume, rays, count, values), len(rays))
    return sums


def _add_up(volume: np.ndarray, rays: np.ndarray, count: int, sums: np.ndarray, start: int, stop: int) -> None:
    kernels.add_up(volume, rays[start:stop], count, sums[start:stop])


@torch.no_grad()
def project_volume(
    volume: Volume,
    geometry: Geometry,
    views: Sequence[View],
    isocentre: Sequence[float],
    progress: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """X-rays of a CT scan: Raylift's own engine of `raylift.drr.ENGINES`.

    Args:
        volume: the whole scan in Hounsfield units.
        geometry: X-ray unit.
        views: directions of looking.
        isocentre: world point (x, y, z) in mm.
        progress: called after each view with the number of views done.

    Returns:
        Line integrals (V, rows, columns), float32, no unit; row 0 is superior.
    """
    padded = torch.zeros(1, *(n + 2 * kernels.MARGIN for n in volume.array.shape))
    hu_to_mu(volume.array, out=padded[(0, *(slice(kernels.MARGIN, -kernels.MARGIN),) * 3)].numpy())
    images = []
    for view in views:
        projector = Projector(volume.grid, geometry, [view], isocentre)
        images.append((_sums(padded, projector) * projector.lengths)[0, 0].numpy())
        progress(len(images))
    return np.stack(images)
