"""Resample volumes whose slices are displaced against each other along a straight line, as by a tilted gantry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from raylift.errors import BadInput
from raylift.images.volume import AIR, Volume, reference_image

SHEARED_MM = 0.2  # displacement of the last slice against the first that is no rounding
STEEPEST = 45.0  # degrees; the gantry of a CT scanner tilts by 30 at most
# Slices are cut where tissue covers `TISSUE_SHARE` of an edge that moves by `CUTTING_MM`, in `CUT_SHARE` of them.
CUTTING_MM = 20.0
SOFT_TISSUE_HU = -100.0
TISSUE_SHARE = 0.15
CUT_SHARE = 0.1


def straightened(path: Path, volume: Volume, shift: np.ndarray) -> Volume:
    """Resample sheared slices to a box that holds all of them, by linear interpolation within each slice.

    Args:
        path: of the volume, for messages.
        volume: Hounsfield units, on the grid that the slices would have if each lay straight above the one before.
        shift: what each slice is displaced by against the one before, in mm along (x, y) of the volume's axes.

    Returns:
        The volume on a straight grid, with a note; the given one where the slices are not sheared.

    Raises:
        BadInput: no gantry tilts so far, or the slices cut the body off.
    """
    depth, rows, columns = volume.array.shape
    if np.abs(shift).max() * (depth - 1) <= SHEARED_MM:
        return volume
    angle = float(np.degrees(np.arctan2(np.linalg.norm(shift), volume.grid.spacing[2])))
    if angle > STEEPEST:
        raise BadInput(path, f"slices sheared by {angle:.0f}°", "no CT scanner tilts so far; export the series again")
    _check_cut(path, volume, shift, angle)
    ends = np.stack([np.zeros(2), shift * (depth - 1)]) / volume.grid.spacing[:2]
    low, high = np.floor(ends.min(0)).astype(int), np.ceil(ends.max(0)).astype(int)
    grid = volume.grid.part((int(low[0]), int(low[1]), 0), (columns + int(high[0]), rows + int(high[1]), depth))
    direction = np.reshape(volume.grid.direction, (3, 3))
    # A point of the box shows the value of the slice at its height, displaced back by that slice's shift.
    shear = np.eye(3)
    shear[:2, 2] = -shift / volume.grid.spacing[2]
    transform = sitk.AffineTransform(3)
    transform.SetMatrix((direction @ shear @ direction.T).ravel().tolist())
    transform.SetCenter(volume.grid.origin)
    image = sitk.Cast(volume.to_sitk(), sitk.sitkFloat32)
    resampled = sitk.Resample(image, reference_image(grid), transform, sitk.sitkLinear, AIR, sitk.sitkFloat32)
    note = f"slices sheared by {angle:.1f}°, as by a tilted gantry: resampled to a box"
    return replace(volume, array=sitk.GetArrayFromImage(resampled), grid=grid, notes=(*volume.notes, note))


def _check_cut(path: Path, volume: Volume, shift: np.ndarray, angle: float) -> None:
    """Check that sheared slices do not leave the body on its way out of the field of view.

    Raises:
        BadInput: soft tissue reaches an edge that the shear moves, in more than a tenth of the slices.
    """
    for axis in np.flatnonzero(np.abs(shift) * (len(volume.array) - 1) > CUTTING_MM):
        for edge in (0, -1):
            tissue = np.take(volume.array, edge, axis=2 - axis) > SOFT_TISSUE_HU
            if np.mean(tissue.mean(1) > TISSUE_SHARE) > CUT_SHARE:
                problem = f"slices sheared by {angle:.0f}° cut the body off"
                raise BadInput(path, problem, "export the series again, from the scanner's own images")
