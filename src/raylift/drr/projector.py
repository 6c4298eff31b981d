"""Differentiable cone-beam projection in PyTorch: the line integrals of a volume along the rays of an X-ray unit."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raylift.geometry import Geometry, View, VolumeGrid
from raylift.volumes import Volume, hu_to_mu

# Positions sampled at a time: bounds memory (a position costs 12 bytes and a float per volume of the batch).
SAMPLES_AT_A_TIME = 1 << 24


class Projector(nn.Module):
    """Line integrals ∫μ dl of volumes that share a grid, for views that share an isocentre.

    The volume is read as the trilinear interpolation of its voxels, falling to 0 within one voxel outside of them.
    Each ray is sampled where it crosses equidistant planes at right angles to the view's axis (the composite
    midpoint rule), so all rays of a view use the same number of samples. Gradients flow to the volume.

    Args:
        grid: positions of the voxels, any orientation.
        geometry: X-ray unit.
        views: directions of looking.
        isocentre: world point (x, y, z) in mm that the unit turns around.
        step: distance of the planes in mm; the grid's smallest spacing by default.
    """

    starts: Tensor
    runs: Tensor
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
        size = np.asarray(grid.shape[::-1], float)
        self.plane_counts: list[int] = []
        self.first_planes: list[float] = []
        self.plane_steps: list[float] = []
        starts, runs, lengths = [], [], []
        for view in views:
            start, end = geometry.rays(view, isocentre)
            # Depth of the volume along the view's axis as a fraction of the way from source to detector, with
            # the voxel around it in which the interpolation falls to 0.
            depth = (geometry.source(view, isocentre) - grid.corners) @ view.towards_source
            margin = max(grid.spacing)
            near, far = max(depth.min() - margin, 0.0), depth.max() + margin
            count = max(1, math.ceil((far - near) / (step or min(grid.spacing))))
            self.plane_counts.append(count)
            self.plane_steps.append((far - near) / count / geometry.sdd)
            self.first_planes.append(near / geometry.sdd + self.plane_steps[-1] / 2)
            # Index coordinates scaled to grid_sample's [-1, 1] (align_corners=False).
            scale = 2 / size
            starts.append((start @ to_index[:3, :3].T + to_index[:3, 3] + 0.5) * scale - 1)
            runs.append((end - start) @ to_index[:3, :3].T * scale)
            lengths.append(np.linalg.norm(end - start, axis=-1))
        for name, value in (("starts", starts), ("runs", runs), ("lengths", lengths)):
            self.register_buffer(name, torch.from_numpy(np.stack(value)).float(), persistent=False)

    def forward(self, mu: Tensor) -> Tensor:
        """Project.

        Args:
            mu: attenuation (B, D, H, W) = (B, z, y, x) in mm⁻¹ on the projector's grid.

        Returns:
            Line integrals (B, V, rows, columns), no unit.
        """
        if tuple(mu.shape[1:]) != self.grid.shape:
            raise ValueError(f"volume {tuple(mu.shape[1:])} does not fit the projector's grid {self.grid.shape}")
        return torch.stack([self._view(mu, index) for index in range(len(self.plane_counts))], 1)

    def _view(self, mu: Tensor, index: int) -> Tensor:
        start, run, length = self.starts[index], self.runs[index], self.lengths[index]
        planes = self.first_planes[index] + self.plane_steps[index] * torch.arange(
            self.plane_counts[index], device=mu.device, dtype=torch.float32
        )
        # The volumes of the batch ride as channels: the rays are the same for all, so one set of weights serves.
        volume = mu.float()[None]
        total = torch.zeros((), device=mu.device)
        for some in planes.split(max(1, SAMPLES_AT_A_TIME // length.numel())):
            positions = start + some[:, None, None, None] * run
            samples = F.grid_sample(volume, positions[None], align_corners=False, padding_mode="zeros")
            total = total + samples[0].sum(1)
        return total * (self.plane_steps[index] * length)


@torch.no_grad()
def project_volume(volume: Volume, geometry: Geometry, views: Sequence[View], isocentre: Sequence[float]) -> np.ndarray:
    """X-rays of a CT scan: the PyTorch engine of `raylift.drr.ENGINES`.

    Args:
        volume: the whole scan in Hounsfield units.
        geometry: X-ray unit.
        views: directions of looking.
        isocentre: world point (x, y, z) in mm.

    Returns:
        Line integrals (V, rows, columns), float32, no unit; row 0 is superior.
    """
    mu = torch.from_numpy(hu_to_mu(volume.array.astype(np.float32)))
    return Projector(volume.grid, geometry, views, isocentre)(mu[None])[0].numpy()
