"""Find the thorax in a CT scan: the body without the table, the lungs in it, and the centre of both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from raylift.errors import BadInput
from raylift.geometry import Point, VolumeGrid
from raylift.images.volume import Volume

BODY_HU = -300.0
LUNG_HU = (-980.0, -400.0)
MIN_LUNGS_ML = 500.0  # of both lungs; adults have about 1500 after breathing out
MIN_LUNGS_MM = 150.0  # height of an adult's lungs after breathing out
SEARCH_SPACING = 4.0  # mm


@dataclass(frozen=True)
class Thorax:
    """The thorax that `find_thorax` found in a scan.

    Args:
        centre: world point (x, y, z) in mm, in the middle of the trunk along x and y and of the lungs along z.
        lung_ml: the volume of the lungs in ml.
        lung_mm: the extent of the lungs along (x, y, z) in mm.
        cut_above: whether the lungs reach the scan's highest slice.
        cut_below: whether the lungs reach the scan's lowest slice.
    """

    centre: Point
    lung_ml: float
    lung_mm: Point
    cut_above: bool
    cut_below: bool

    @property
    def warnings(self) -> list[str]:
        """The reasons why the centre is uncertain, one phrase each."""
        cuts = (("upper", self.cut_above), ("lower", self.cut_below))
        reasons = [f"the lungs reach the {end} end of the scan" for end, cut in cuts if cut]
        if not reasons and self.lung_mm[2] < MIN_LUNGS_MM:
            reasons.append(f"the lungs seem only {self.lung_mm[2]:.0f} mm tall: part of them may not look like lung")
        return reasons


def find_thorax(volume: Volume) -> Thorax:
    """Find the lungs and the trunk around them at 4 mm.

    Args:
        volume: a scan in Hounsfield units.

    Returns:
        Centre, size and position of the thorax.

    Raises:
        BadInput: the scan shows no lungs, but less than 500 ml of lung tissue enclosed by a body.
    """
    coarse = _at_search_spacing(volume)
    hu = coarse.array
    body = find_body(hu > BODY_HU)
    lungs = _lungs(body & (hu > LUNG_HU[0]) & (hu < LUNG_HU[1]))
    voxel_ml = float(np.prod(coarse.grid.spacing)) / 1000
    lung_ml = float(lungs.sum()) * voxel_ml
    if lung_ml < MIN_LUNGS_ML:
        raise BadInput("scan", f"no lungs found ({lung_ml:.0f} ml of enclosed lung tissue)", "give a chest CT in HU")
    z, y, x = (_extent(lungs, axis) for axis in range(3))
    trunk = _trunk(body[z[0] : z[1] + 1], lungs[z[0] : z[1] + 1])
    trunk_y, trunk_x = (_typical_extent(trunk, axis) for axis in (1, 2))
    middle = [sum(trunk_x) / 2, sum(trunk_y) / 2, (z[0] + z[1]) / 2, 1.0]
    cx, cy, cz = (float(c) for c in (coarse.grid.index_to_world @ middle)[:3])
    sx, sy, sz = coarse.grid.spacing
    size = ((x[1] - x[0] + 1) * sx, (y[1] - y[0] + 1) * sy, (z[1] - z[0] + 1) * sz)
    return Thorax((cx, cy, cz), lung_ml, size, z[1] == hu.shape[0] - 1, z[0] == 0)


def _at_search_spacing(volume: Volume) -> Volume:
    """Return a scan resampled at `SEARCH_SPACING`."""
    low, high = volume.grid.corners.min(0), volume.grid.corners.max(0)
    x, y, z = (max(2, round(float(extent) / SEARCH_SPACING)) for extent in high - low)
    return volume.resample(VolumeGrid.box((low + high) / 2, (z, y, x), SEARCH_SPACING))


def find_body(dense: np.ndarray, opening: int = 2, closing: int = 2) -> np.ndarray:
    """Return the mask (z, y, x) of the body: the largest piece of dense voxels, without the table, cavities filled.

    Args:
        dense: the mask (z, y, x) of dense voxels.
        opening: half the thickness in voxels of the parts, such as the table, that a morphological opening removes.
        closing: half the width in voxels of the gaps that are closed.
    """
    opened: np.ndarray = ndimage.binary_opening(dense, iterations=opening)
    labels, count = ndimage.label(opened)
    if count == 0:
        return opened
    body = labels == 1 + np.argmax(ndimage.sum_labels(opened, labels, np.arange(1, count + 1)))
    # Closing comes first, so that an airway or a lung behind a thin wall is filled too.
    body = ndimage.binary_closing(np.pad(body, closing), iterations=closing)[(slice(closing, -closing),) * 3]
    # A narrow field of view cuts the flanks off: its left and right edges count as body, so that a lung that reaches
    # one of them still counts as a cavity.
    sides = ((0, 0), (1, 1))
    filled: np.ndarray = np.stack(
        [ndimage.binary_fill_holes(np.pad(s, sides, constant_values=True))[:, 1:-1] for s in body]
    )
    return filled


def _lungs(candidates: np.ndarray) -> np.ndarray:
    """Return the mask (z, y, x) of both lungs, without bowel gas.

    They are the largest piece of the candidates, and those at its height with at least a tenth of its voxels.
    """
    labels, count = ndimage.label(ndimage.binary_opening(candidates))
    if count == 0:
        return candidates & False
    sizes = ndimage.sum_labels(candidates, labels, np.arange(1, count + 1))
    low, high = _extent(labels == 1 + np.argmax(sizes), 0)
    kept = [
        piece + 1
        for piece, span in enumerate(ndimage.find_objects(labels))
        if sizes[piece] >= sizes.max() / 10 and low <= (span[0].start + span[0].stop - 1) / 2 <= high
    ]
    return np.isin(labels, kept)


def _trunk(body: np.ndarray, lungs: np.ndarray) -> np.ndarray:
    """Return the pieces of the body that contain lung in each slice, and so no arm beside them."""
    slices = []
    for tissue, lung in zip(body, lungs, strict=True):
        labels, _ = ndimage.label(tissue)
        slices.append(np.isin(labels, np.unique(labels[lung & tissue])) & tissue)
    return np.stack(slices)


def _extent(mask: np.ndarray, axis: int) -> tuple[int, int]:
    """Return the first and the last index of a mask along an axis."""
    along = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
    return int(along[0]), int(along[-1])


def _typical_extent(mask: np.ndarray, axis: int) -> tuple[float, float]:
    """Return the medians over the slices of a mask's first and last index along `axis`; arms in a few do not count."""
    across = np.any(mask, axis=3 - axis)  # (z, axis)
    along = across[np.any(across, axis=1)]
    first = along.argmax(1)
    last = along.shape[1] - 1 - along[:, ::-1].argmax(1)
    return float(np.median(first)), float(np.median(last))
