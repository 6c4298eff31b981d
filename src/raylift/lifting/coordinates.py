"""The point of an X-ray that each voxel takes its value from, for each kind of lift."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raylift.geometry import Camera, View, VolumeGrid

RIGHT = 5.0  # greatest difference in degrees at which a view still counts as being at a right angle


def repeat(grid: VolumeGrid, camera: Camera, isocentre: Sequence[float]) -> np.ndarray:
    """Return each voxel's point when the X-ray is repeated along its camera's axis (equation 1).

    A frontal image (z, x) is repeated along y, a lateral image (z, y) along x, an oblique one along its own axis;
    in all of them the cranio-caudal axis stays z. The image is scaled to its size at the isocentre, and the beam
    is assumed to be parallel.

    Returns:
        Continuous pixel coordinates (z, y, x, 2) as (row, column).
    """
    return camera.at(isocentre).project(grid.points())


def backproject(grid: VolumeGrid, camera: Camera) -> np.ndarray:
    """Return the point where the ray through each voxel meets the detector.

    Returns:
        Continuous pixel coordinates (z, y, x, 2) as (row, column).
    """
    return camera.project(grid.points())


def transpose(grid: VolumeGrid, camera: Camera, isocentre: Sequence[float]) -> np.ndarray:
    """Return each voxel's point in the paper's repetition without alignment.

    Views at right angles are transposed, which equals `repeat`; all others are repeated as if they were frontal.

    Returns:
        Continuous pixel coordinates (z, y, x, 2) as (row, column).
    """
    return repeat(grid, turned_to(camera, _transposed(camera.view), isocentre), isocentre)


def turned_to(camera: Camera, angle: float, isocentre: Sequence[float]) -> Camera:
    """Return a camera turned around the patient's long axis to the view of an angle in degrees."""
    return camera.moved((0.0, 0.0, angle - camera.view.angle), (0.0, 0.0, 0.0), isocentre)


def depth_axis(view: View) -> int:
    """Return the axis of (z, y, x) along which `transpose` repeats a view: 2 for a lateral, 1 for any other."""
    return 2 if _transposed(view) % 180 else 1


def _transposed(view: View) -> float:
    """Return the right angle that a view is at, within `RIGHT`; for any other view the angle of a frontal one."""
    nearest = 90.0 * round(view.angle / 90)
    return nearest % 360 if abs(view.angle - nearest) <= RIGHT else frontal_angle(view)


def frontal_angle(view: View) -> float:
    """Return the angle of the frontal view whose image has the same orientation as this view's."""
    return 180.0 if view.mirrored else 0.0
