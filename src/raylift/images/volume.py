"""A CT volume: voxels in Hounsfield units, with the grid of their positions in the patient."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from raylift.geometry import VolumeGrid

AIR = -1000.0  # HU
PIECE = 2**25  # voxels of the source volume that are resampled at a time
KERNEL = 5  # greatest reach of the Gaussian, in standard deviations


@dataclass(frozen=True)
class Volume:
    """An array (z, y, x) with its grid; increasing z is superior, y posterior, x left for an identity direction.

    Args:
        array: the values.
        grid: the positions of the voxels.
        notes: what was left out, assumed or changed when it was read, one phrase each.
    """

    array: np.ndarray
    grid: VolumeGrid
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.array.shape != self.grid.shape:
            raise ValueError(f"array {self.array.shape} and grid {self.grid.shape} differ in shape")

    def to_sitk(self) -> sitk.Image:
        """Return the volume as a SimpleITK image."""
        image = sitk.GetImageFromArray(self.array)
        image.SetSpacing(self.grid.spacing)
        image.SetOrigin(self.grid.origin)
        image.SetDirection(self.grid.direction)
        return image

    @classmethod
    def from_sitk(cls, image: sitk.Image) -> Volume:
        """Return a scalar 3D SimpleITK image as a volume."""
        array = sitk.GetArrayFromImage(image)
        grid = VolumeGrid(array.shape, image.GetSpacing(), image.GetOrigin(), image.GetDirection())
        return cls(array, grid)

    def resample(self, grid: VolumeGrid, *, fill: float = AIR, smooth: bool = True) -> Volume:
        """Resample the volume onto another grid by trilinear interpolation in world coordinates.

        Only a few slices are computed at a time, so that a large scan is never converted to floating point as a whole.

        Args:
            grid: the new grid.
            fill: value outside of this volume.
            smooth: first blur with a Gaussian along each axis that gets coarser, with a standard deviation of 0.4 new
                voxels, so that fine structure is averaged rather than skipped.

        Returns:
            A float32 volume on `grid`.
        """
        _, y, x = grid.shape
        slices = max(1, int(PIECE * grid.shape[0] / self.array.size))
        ends = [*range(0, grid.shape[0], slices), grid.shape[0]]
        parts = [
            self._resampled(grid.part((0, 0, low), (x, y, high)), fill, smooth)
            for low, high in itertools.pairwise(ends)
        ]
        return Volume(parts[0] if len(parts) == 1 else np.concatenate(parts), grid)

    def _resampled(self, grid: VolumeGrid, fill: float, smooth: bool) -> np.ndarray:
        """Return the values (z, y, x) on a part of a grid, computed from the part of this volume that it needs."""
        sigma = [0.0] * 3
        if smooth:
            # The new spacing along this volume's own index axes: exact for aligned grids, a mean for rotated ones.
            turn = np.abs(np.reshape(self.grid.direction, (3, 3)).T @ np.reshape(grid.direction, (3, 3)))
            spacing = turn @ np.asarray(grid.spacing) / turn.sum(1)
            sigma = [
                0.4 * new if new > old * 1.0001 else 0.0 for new, old in zip(spacing, self.grid.spacing, strict=True)
            ]
        corners = grid.corners @ self.grid.world_to_index[:3, :3].T + self.grid.world_to_index[:3, 3]
        margin = np.ceil(KERNEL * np.asarray(sigma) / self.grid.spacing) + 2
        last = np.array(self.grid.shape[::-1]) - 1
        low, high = (np.clip(edge, 0, last).astype(int) for edge in (corners.min(0) - margin, corners.max(0) + margin))
        crop = tuple(slice(start, stop + 1) for start, stop in zip(low[::-1], high[::-1], strict=True))
        cropped = Volume(self.array[crop], self.grid.part(low, high + 1))
        image = sitk.Cast(cropped.to_sitk(), sitk.sitkFloat32)
        if any(sigma):
            image = sitk.DiscreteGaussian(image, [max(s, 1e-3) ** 2 for s in sigma])
        resampled = sitk.Resample(image, reference_image(grid), sitk.Transform(), sitk.sitkLinear, fill)
        values: np.ndarray = sitk.GetArrayFromImage(resampled)
        return values

    def axis_aligned(self) -> Volume:
        """Return the same voxels with array axes permuted and flipped to run as nearly as possible along +z, +y, +x."""
        return Volume.from_sitk(sitk.DICOMOrient(self.to_sitk(), "LPS"))


def reference_image(grid: VolumeGrid) -> sitk.Image:
    """Return an image of zeros on a grid, as SimpleITK's resampling takes one: 8-bit, lengths in mm."""
    reference = sitk.Image([int(n) for n in grid.shape[::-1]], sitk.sitkUInt8)
    reference.SetSpacing(grid.spacing)
    reference.SetOrigin(grid.origin)
    reference.SetDirection(grid.direction)
    return reference
