"""Which point of an X-ray belongs to a voxel, for each way to lift: what a lift samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from raylift.geometry import Geometry, View, VolumeGrid

RIGHT = 5.0  # degrees from a right angle at which a view still counts as being at it


def repeat(grid: VolumeGrid, geometry: Geometry, view: View, isocentre: Sequence[float]) -> np.ndarray:
    """Equation 1: the X-ray is repeated along the direction in which its view looks.

    A frontal image (z, x) is repeated along y, a lateral image (z, y) along x, an oblique one along its own axis;
    in all of them the cranio-caudal axis stays z. The image is taken at its size at the isocentre, and the beam
    as parallel.

    Returns:
        Continuous pixel coordinates (z, y, x, 2) as (row, column).
    """
    seen = geometry.detector_mm if geometry.parallel else geometry.detector_mm * geometry.sad / geometry.sdd
    return replace(geometry, detector_mm=seen, parallel=True).project(grid.points(), view, isocentre)


def backproject(grid: VolumeGrid, geometry: Geometry, view: View, isocentre: Sequence[float]) -> np.ndarray:
    """The exact form of "repeat": each voxel samples the X-ray where its own ray meets the detector.

    Returns:
        Continuous pixel coordinates (z, y, x, 2) as (row, column).
    """
    return geometry.project(grid.points(), view, isocentre)


def transpose(grid: VolumeGrid, geometry: Geometry, view: View, isocentre: Sequence[float]) -> np.ndarray:
    """The paper's repetition without alignment: views at right angles are transposed, others lie as frontal ones do.

    For views at right angles it is `repeat`.

    Returns:
        Continuous pixel coordinates (z, y, x, 2) as (row, column).
    """
    return repeat(grid, geometry, replace(view, angle=_transposed(view)), isocentre)


def depth_axis(view: View) -> int:
    """Axis of (z, y, x) along which `transpose` repeats a view: 2 for a lateral, 1 for any other."""
    return 2 if _transposed(view) % 180 else 1


def _transposed(view: View) -> float:
    """The right angle that a view is at, within `RIGHT`; for any other the angle of a frontal view."""
    nearest = 90.0 * round(view.angle / 90)
    return nearest % 360 if abs(view.angle - nearest) <= RIGHT else frontal_angle(view)


def frontal_angle(view: View) -> float:
    """The angle of the frontal view whose image lies as this view's does."""
    return 180.0 if view.mirrored else 0.0
