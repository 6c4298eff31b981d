"""From views to the channels of a 3D volume: the step between 2D X-rays and a 3D→3D network.

A lift answers one question for each voxel and each view: which point of the X-ray belongs to this voxel?
`repeat` is equation 1 of the paper, which takes the rays to be parallel; `backproject` follows each ray. `transpose`,
`coarse` and the two kinds of noise are the variants that the paper compares; `image` lifts nothing, for networks that
take X-rays as they are.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from raylift.geometry import Geometry, View, VolumeGrid

RIGHT = 5.0  # degrees from a right angle at which a view still counts as being at it

# (grid, geometry, view, isocentre) -> (row, column) of the pixel that each voxel takes its value from.
Shadows = Callable[[VolumeGrid, Geometry, View, Sequence[float]], np.ndarray]


def repeat(grid: VolumeGrid, geometry: Geometry, view: View, isocentre: Sequence[float]) -> np.ndarray:
    """Equation 1: the X-ray is repeated along the direction in which its view looks.

    A frontal image (z, x) is repeated along y, a lateral image (z, y) along x, an oblique one along its own axis;
    in all of them the cranio-caudal axis stays z. The image is taken at its size at the isocentre, and the beam
    as parallel.

    Returns:
        Continuous pixel coordinates (z, y, x, 2) as (row, column).
    """
    seen = geometry.detector_mm if geometry.parallel else geometry.detector_mm * geometry.sad / geometry.sdd
    return replace(geometry, detector_mm=seen, parallel=True).shadow(grid.points(), view, isocentre)


def backproject(grid: VolumeGrid, geometry: Geometry, view: View, isocentre: Sequence[float]) -> np.ndarray:
    """The exact form of "repeat": each voxel samples the X-ray where its own ray meets the detector.

    Returns:
        Continuous pixel coordinates (z, y, x, 2) as (row, column).
    """
    return geometry.shadow(grid.points(), view, isocentre)


def transpose(grid: VolumeGrid, geometry: Geometry, view: View, isocentre: Sequence[float]) -> np.ndarray:
    """The paper's repetition without alignment: views at right angles are transposed, others lie as frontal ones do.

    For views at right angles it is `repeat`.

    Returns:
        Continuous pixel coordinates (z, y, x, 2) as (row, column).
    """
    return repeat(grid, geometry, replace(view, angle=_transposed(view)), isocentre)


class Lift(torch.nn.Module):
    """X-rays of N views to N channels of a volume on `grid`, by bilinear sampling of each X-ray.

    Args:
        shadows: where each voxel looks.
        grid: the volume to fill.
        geometry: X-ray unit; its `pixels` are those of the X-rays given to `forward`.
        views: one per X-ray.
        isocentre: world point (x, y, z) in mm.
    """

    positions: Tensor
    seen: Tensor

    def __init__(
        self,
        shadows: Shadows,
        grid: VolumeGrid,
        geometry: Geometry,
        views: Sequence[View],
        isocentre: Sequence[float],
    ) -> None:
        super().__init__()
        self.grid, self.geometry, self.views = grid, geometry, tuple(views)
        sampled = np.stack([self._sampled(shadows(grid, geometry, view, isocentre), view) for view in views])
        # (row, column) in pixels to grid_sample's (x, y) in [-1, 1] (align_corners=False).
        positions = (sampled[..., ::-1] + 0.5) * (2 / geometry.pixels) - 1
        self.shape = positions.shape[1:-1]
        flat = positions.reshape(len(views), -1, self.shape[-1], 2)
        self.register_buffer("positions", torch.from_numpy(flat.astype(np.float32)), persistent=False)
        # (N, z, y, x): whether each voxel's ray meets the detector, within the centres of the outermost pixels.
        seen = (self.positions.abs() <= 1 - 1 / geometry.pixels).all(-1).unflatten(1, self.shape[:-1])
        self.register_buffer("seen", seen, persistent=False)

    def _sampled(self, shadows: np.ndarray, view: View) -> np.ndarray:
        """Those of the voxels (z, y, x, 2) that are filled: all."""
        return shadows

    def forward(self, xrays: Tensor, patients: Sequence[int] | None = None) -> Tensor:
        """Lift.

        Args:
            xrays: (B, N, rows, columns).
            patients: number of each patient in training, from which noise lifts draw; None in reconstruction.

        Returns:
            Volume (B, N, D, H, W) = (B, N, z, y, x); 0 where a voxel's ray misses the detector.
        """
        pixels = self.geometry.pixels
        if tuple(xrays.shape[1:]) != (len(self.positions), pixels, pixels):
            raise ValueError(f"X-rays {tuple(xrays.shape)} do not fit {len(self.positions)} views of {pixels} pixels")
        # Views are the batch and volumes the channels, since a view's positions are the same for all volumes.
        lifted = F.grid_sample(xrays.float().transpose(0, 1), self.positions, align_corners=False)
        return lifted.transpose(0, 1).unflatten(2, self.shape[:-1])


class CoarseLift(Lift):
    """The paper's coarse alignment: each image is repeated as if frontal, then turned by its view's angle.

    The rotation about the cranio-caudal axis is Kornia's, trilinear, so corners of the cube are empty in oblique
    views. Arguments as for `Lift`.
    """

    def __init__(self, grid: VolumeGrid, geometry: Geometry, views: Sequence[View], isocentre: Sequence[float]) -> None:
        frontal = [replace(view, angle=_frontal(view)) for view in views]
        super().__init__(repeat, grid, geometry, frontal, isocentre)
        self.turns = [view.angle - _frontal(view) for view in views]

    def forward(self, xrays: Tensor, patients: Sequence[int] | None = None) -> Tensor:
        """As `Lift.forward`."""
        from kornia.geometry.transform import rotate3d

        lifted = super().forward(xrays)
        zero = torch.zeros(len(lifted), device=lifted.device)
        turned = [
            # A rotation vector along Kornia's third axis, here z, turns x towards y, as a view's angle does.
            rotate3d(channel, zero, zero, torch.full_like(zero, turn), align_corners=True)
            for channel, turn in zip(lifted.split(1, 1), self.turns, strict=True)
        ]
        return torch.cat(turned, 1)


class NoiseLift(Lift):
    """Noise instead of copies: the image fills the first slice of its axis, one image of N(0, 1) all others.

    This is what the published program does; the paper's text speaks of noise z alone.

    Args:
        fresh: noise is drawn anew for each batch in training; else each patient keeps its own. In reconstruction it
            follows from the X-ray, so that the same X-rays give the same volume.
        grid: as for `Lift`, with the arguments after it.
    """

    def __init__(
        self, fresh: bool, grid: VolumeGrid, geometry: Geometry, views: Sequence[View], isocentre: Sequence[float]
    ) -> None:
        super().__init__(transpose, grid, geometry, views, isocentre)
        self.fresh = fresh

    def forward(self, xrays: Tensor, patients: Sequence[int] | None = None) -> Tensor:
        """As `Lift.forward`."""
        lifted = super().forward(xrays)
        if self.fresh and patients is not None:
            noise = torch.randn(len(xrays), len(self.views), *self.grid.shape[1:])
        else:
            seeds = patients or [zlib.crc32(images.detach().cpu().numpy().tobytes()) for images in xrays]
            noise = torch.stack([self._noise(seed) for seed in seeds])
        for channel, view in enumerate(self.views):
            axis = depth_axis(view) + 1
            behind = lifted[:, channel].narrow(axis, 1, lifted[:, channel].shape[axis] - 1)
            behind.copy_(noise[:, channel].unsqueeze(axis).expand_as(behind))
        return lifted

    def _noise(self, seed: int) -> Tensor:
        """(N, D, W) of a cube (D, W, W); the same for the same seed and view."""
        generators = [torch.Generator().manual_seed(1000 * seed + round(view.angle)) for view in self.views]
        return torch.stack([torch.randn(self.grid.shape[1:], generator=generator) for generator in generators])


class ImageLift(Lift):
    """No lift: each X-ray as an image in the volume's frame, for networks that go from 2D to 3D by themselves.

    A frontal image becomes (z, x), a lateral one (z, y), each sampled where the rays through the cube's middle plane
    meet the detector. Arguments as for `Lift`; `forward` returns (B, N, D, W) of a cube.
    """

    def __init__(self, grid: VolumeGrid, geometry: Geometry, views: Sequence[View], isocentre: Sequence[float]) -> None:
        super().__init__(transpose, grid, geometry, views, isocentre)

    def _sampled(self, shadows: np.ndarray, view: View) -> np.ndarray:
        # `transpose` is constant along the depth.
        return shadows.take(0, axis=depth_axis(view))


def depth_axis(view: View) -> int:
    """Axis of (z, y, x) along which `transpose` repeats a view: 2 for a lateral, 1 for any other."""
    return 2 if _transposed(view) % 180 else 1


def _transposed(view: View) -> float:
    """The right angle that a view is at, within `RIGHT`; for any other the angle of a frontal view."""
    nearest = 90.0 * round(view.angle / 90)
    return nearest % 360 if abs(view.angle - nearest) <= RIGHT else _frontal(view)


def _frontal(view: View) -> float:
    """The angle of the frontal view whose image lies as this view's does."""
    return 180.0 if view.mirrored else 0.0


# (grid, geometry, views, isocentre) -> a lift
LIFTS: dict[str, Callable[[VolumeGrid, Geometry, Sequence[View], Sequence[float]], Lift]] = {
    "repeat": partial(Lift, repeat),
    "backproject": partial(Lift, backproject),
    "transpose": partial(Lift, transpose),
    "coarse": CoarseLift,
    "noise-fixed": partial(NoiseLift, False),
    "noise-fresh": partial(NoiseLift, True),
    "image": ImageLift,
}
