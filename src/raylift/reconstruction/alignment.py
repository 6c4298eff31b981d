"""Alignment of X-rays: the small rotation and shift of each view, estimated from a volume.

A patient who turns or breathes between two exposures, or misaligned equipment, displaces the views relative to each
other. A displacement that all views share cannot be told from another position of the patient, so the mean over the
views is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from scipy.optimize import least_squares

from raylift.drr.operator import ProjectionOperator
from raylift.geometry import Point, View, VolumeGrid
from raylift.images.hounsfield import normalised_to_mu
from raylift.images.volume import Volume
from raylift.images.xray_set import XraySet
from raylift.reconstruction.iterative import System
from raylift.reconstruction.refinement import surround

COMPARED_PIXELS = 64  # along an edge of the X-rays that are compared
MAX_TURN, MAX_SHIFT = 10.0, 25.0  # degrees, mm
USUAL_TURN, USUAL_SHIFT = 5.0, 10.0  # degrees, mm: standard deviations of the prior, which weakly favours no motion
NARROW, WIDE = 1.0, 6.0  # pixels: standard deviations of the two Gaussians between which structure is compared
# Motions of source and detector: turns about (0 to 2) and shifts along (3 to 5) the view's axis, the direction u of the
# columns and the direction v of the rows. Each round of alignment estimates some of them, then the network computes a
# new volume: first motions in the image's plane, then also tilts. The other motions are not estimated. A shift along u
# in one of two views at right angles is invisible in the other, so the volume follows it; a shift along the view's axis
# and a turn about the patient's long axis change the image less than the network's errors do.
ROUNDS = ((0, 5), (0, 1, 5))
STEP_TURN, STEP_SHIFT = 0.25, 0.5  # degrees, mm: steps of the central differences
EVALUATIONS = 12  # most evaluations of a view's residuals; each Jacobian takes two more for each motion
NOISE_SHARE = 0.5  # standard deviation of a pixel's noise, as a share of that of the X-ray's structure


def align(volume: Volume, xrays: XraySet, motions: Sequence[int] = ROUNDS[-1]) -> tuple[View, ...]:
    """Return the views of X-rays, displaced so that a volume's projections are most like the X-rays.

    For each view, SciPy's trust-region least squares with a soft L1 loss minimises the difference between X-ray and
    projection over some motions. The structures (differences of Gaussians) are compared, since the level of an X-ray
    depends on what lies outside of the volume, and the volume has no finer edges.

    Args:
        volume: Hounsfield units (z, y, x) on a cube centred on the isocentre, or on the origin where it is not known.
        xrays: line integrals; the search starts at the displacements of their views.
        motions: which motions to estimate, see `ROUNDS`; the others are kept.

    Returns:
        One view per X-ray; the mean of their turns and shifts is kept. A single view is returned unchanged.
    """
    if len(xrays.views) == 1:
        return xrays.views
    coarse = F.interpolate(torch.from_numpy(xrays.images)[None].float(), (COMPARED_PIXELS,) * 2, mode="area")[0].numpy()
    xrays = xrays.with_images(coarse)
    system = System(xrays, volume.grid)
    box = torch.from_numpy(normalised_to_mu(surround(volume, system)))[None]
    estimates = [
        _estimate_displacement(box, system.A.grid, xrays, number, image, motions) for number, image in enumerate(coarse)
    ]
    initial = [[*view.turn, *view.shift] for view in xrays.views]
    return displace(xrays.views, np.stack(estimates) - np.mean(estimates, 0) + np.mean(initial, 0))


def displace(views: Sequence[View], displacements: np.ndarray) -> tuple[View, ...]:
    """Return views with the displacements (N, 6): a turn in degrees and a shift in mm, both (x, y, z)."""
    return tuple(
        replace(view, turn=(float(a), float(b), float(c)), shift=(float(d), float(e), float(f)))
        for view, (a, b, c, d, e, f) in zip(views, displacements, strict=True)
    )


def structure(image: np.ndarray) -> np.ndarray:
    """Return the structure of an image (rows, columns) between two scales, as a difference of Gaussians."""
    difference: np.ndarray = gaussian_filter(image, NARROW) - gaussian_filter(image, WIDE)
    return difference


def _estimate_displacement(
    box: torch.Tensor, grid: VolumeGrid, xrays: XraySet, number: int, image: np.ndarray, motions: Sequence[int]
) -> np.ndarray:
    """Return the turn and shift (6,) of a view at which a box's (1, z, y, x) projection is most like the X-ray."""
    view = xrays.views[number]
    plain, initial = replace(view, turn=(0, 0, 0), shift=(0, 0, 0)), np.array([*view.turn, *view.shift])
    camera = xrays.camera(number, plain)
    frame = np.zeros((6, 6))  # columns: displacements by one degree or mm
    frame[:3, 0] = frame[3:, 3] = camera.axis
    frame[:3, 1] = frame[3:, 4] = _direction(camera.column_step)
    frame[:3, 2] = frame[3:, 5] = _direction(camera.row_step)
    frame = frame[:, list(motions)]
    kept = initial - frame @ (frame.T @ initial)
    turns = np.abs(frame[:3]).sum(0) > 0
    usual, limit = np.where(turns, USUAL_TURN, USUAL_SHIFT), np.where(turns, MAX_TURN, MAX_SHIFT)
    steps = np.diag(np.where(turns, STEP_TURN, STEP_SHIFT))
    target = structure(image)
    scale = NOISE_SHARE * max(float(target.std()), 1e-6)

    def residuals(motion: np.ndarray) -> np.ndarray:
        """Return the differences of the structures (pixels,) and those from the prior (motions,), over their noise."""
        (displaced,) = displace([view], (kept + frame @ motion)[None])
        with torch.no_grad():
            projection = ProjectionOperator(grid, [xrays.camera(number, displaced)])(box)[0, 0].numpy()
        return np.concatenate([(structure(projection) - target).ravel() / scale, motion / usual])

    def jacobian(motion: np.ndarray) -> np.ndarray:
        """Return the derivatives (residuals, motions) by central differences."""
        return np.stack([(residuals(motion + h) - residuals(motion - h)) / (2 * h.sum()) for h in steps], -1)

    start = np.clip(frame.T @ initial, -0.99 * limit, 0.99 * limit)
    solution = least_squares(
        residuals, start, jacobian, bounds=(-limit, limit), x_scale=usual, loss="soft_l1", max_nfev=EVALUATIONS
    ).x
    displacement: np.ndarray = kept + frame @ solution
    return displacement


def _direction(step: Point) -> np.ndarray:
    """Return the unit vector (3,) of a step."""
    direction: np.ndarray = np.asarray(step) / np.linalg.norm(step)
    return direction
