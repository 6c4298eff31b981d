"""Where the views of a set of X-rays really were: each one's small rotation and shift, found from a volume.

A patient who turns or breathes between two exposures, or a unit that stands askew, displaces the views against each
other. X-rays cannot tell a displacement that all views share from a patient who lies elsewhere, so that the mean over
the views is kept.
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
from raylift.geometry import View, VolumeGrid
from raylift.images.hounsfield import normalised_to_mu
from raylift.images.volume import Volume
from raylift.images.xray_set import XraySet
from raylift.reconstruction.iterative import System
from raylift.reconstruction.refinement import surround

PIXELS = 64  # of the X-rays that are compared
MAX_TURN, MAX_SHIFT = 10.0, 25.0  # degrees, mm
USUAL_TURN, USUAL_SHIFT = 5.0, 10.0  # standard deviations that are thought usual: a weak pull towards none
NARROW, WIDE = 1.0, 6.0  # pixels: standard deviations of the two Gaussians between which structure is compared
# Motions of a unit: turns about (0 to 2) and shifts along (3 to 5) the view's axis, its columns' direction, and its
# rows'. Each round of alignment searches for some, and the network is asked again: first in the image's plane, then
# with tilts. The others are left out. What a shift along the columns of one of two views at right angles moves, the
# other does not see, so the volume follows it; depth, and a turn about the patient's long axis, show less than the
# network errs.
ROUNDS = ((0, 5), (0, 1, 5))
STEP_TURN, STEP_SHIFT = 0.25, 0.5  # of the central differences
EVALUATIONS = 12  # at most, of a view's residuals; their slopes take two more for each motion
NOISE = 0.5  # of a compared pixel, in standard deviations of the X-ray's structure


def align(volume: Volume, xrays: XraySet, motions: Sequence[int] = ROUNDS[-1]) -> tuple[View, ...]:
    """The views of X-rays with the displacement at which a volume's projections look most like them.

    For each view, minimises the difference of X-ray and projection over some motions, by SciPy's trust-region least
    squares with a soft L1 loss. Compared is the structure (a difference of Gaussians): the level depends on what lies
    outside of the volume, and finer edges are not in it.

    Args:
        volume: Hounsfield units (z, y, x) on a cube centred on the isocentre, or on the origin where it is not known.
        xrays: line integrals; the displacement of their views is where the search starts.
        motions: which to search for, see `ROUNDS`; the others stay as they are.

    Returns:
        One view per X-ray; the mean of their turns and shifts stays what it was. One view stays as it is.
    """
    if len(xrays.views) == 1:
        return xrays.views
    coarse = F.interpolate(torch.from_numpy(xrays.images)[None].float(), (PIXELS,) * 2, mode="area")[0].numpy()
    xrays = replace(xrays, images=coarse, geometry=xrays.geometry.with_pixels(PIXELS))
    system = System(xrays, volume.grid)
    box = torch.from_numpy(normalised_to_mu(surround(volume, system)))[None]
    found = [
        _displacement(box, system.A.grid, xrays, view, image, motions)
        for view, image in zip(xrays.views, coarse, strict=True)
    ]
    given = [[*view.turn, *view.shift] for view in xrays.views]
    return displaced(xrays.views, np.stack(found) - np.mean(found, 0) + np.mean(given, 0))


def displaced(views: Sequence[View], displacements: np.ndarray) -> tuple[View, ...]:
    """Views with the displacements (N, 6): a turn in degrees and a shift in mm, both (x, y, z)."""
    return tuple(
        replace(view, turn=(float(a), float(b), float(c)), shift=(float(d), float(e), float(f)))
        for view, (a, b, c, d, e, f) in zip(views, displacements, strict=True)
    )


def structure(image: np.ndarray) -> np.ndarray:
    """What an image (rows, columns) shows between two scales, as a difference of Gaussians."""
    return gaussian_filter(image, NARROW) - gaussian_filter(image, WIDE)


def _displacement(
    box: torch.Tensor, grid: VolumeGrid, xrays: XraySet, view: View, image: np.ndarray, motions: Sequence[int]
) -> np.ndarray:
    """Turn and shift (6,) of a view at which the projection of a box (1, z, y, x) is the nearest to its X-ray."""
    plain, given = replace(view, turn=(0, 0, 0), shift=(0, 0, 0)), np.array([*view.turn, *view.shift])
    frame = np.zeros((6, 6))  # columns: displacements by one degree or mm
    frame[:3, 0] = frame[3:, 3] = plain.towards_source
    frame[:3, 1] = frame[3:, 4] = plain.u
    frame[:3, 2] = frame[3:, 5] = plain.v
    frame = frame[:, list(motions)]
    kept = given - frame @ (frame.T @ given)
    turns = np.abs(frame[:3]).sum(0) > 0
    usual, limit = np.where(turns, USUAL_TURN, USUAL_SHIFT), np.where(turns, MAX_TURN, MAX_SHIFT)
    steps = np.diag(np.where(turns, STEP_TURN, STEP_SHIFT))
    wanted = structure(image)
    scale = NOISE * max(float(wanted.std()), 1e-6)
    isocentre = xrays.isocentre or (0.0, 0.0, 0.0)

    def residuals(motion: np.ndarray) -> np.ndarray:
        (there,) = displaced([view], (kept + frame @ motion)[None])
        with torch.no_grad():
            seen = ProjectionOperator(grid, xrays.geometry, [there], isocentre)(box)[0, 0].numpy()
        return np.concatenate([(structure(seen) - wanted).ravel() / scale, motion / usual])

    def slopes(motion: np.ndarray) -> np.ndarray:
        return np.stack([(residuals(motion + h) - residuals(motion - h)) / (2 * h.sum()) for h in steps], -1)

    start = np.clip(frame.T @ given, -0.99 * limit, 0.99 * limit)
    found = least_squares(
        residuals, start, slopes, bounds=(-limit, limit), x_scale=usual, loss="soft_l1", max_nfev=EVALUATIONS
    ).x
    whole: np.ndarray = kept + frame @ found
    return whole
