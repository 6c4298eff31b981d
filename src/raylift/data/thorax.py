"""Where the thorax is in a CT scan: the body without the table, the lungs in it, and the centre of both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from raylift.errors import BadInput
from raylift.geometry import Point, VolumeGrid
from raylift.images.volume import Volume

BODY_HU = -300.0
LUNG_HU = (-980.0, -400.0)
SMALLEST_LUNGS_ML = 500.0  # both together; adults breathe out to about 1500
LOWEST_LUNGS_MM = 150.0  # of an adult who has breathed out
SEARCH_SPACING = 4.0  # mm


@dataclass(frozen=True)
class Thorax:
    """What `find_thorax` saw.

    Args:
        centre: world point (x, y, z) in mm: the middle of the trunk across and front to back, of the lungs in z.
        lung_ml: volume of the lungs in ml.
        lung_mm: extent of the lungs along (x, y, z) in mm.
        cut_above: the lungs reach the scan's highest slice.
        cut_below: the lungs reach the scan's lowest slice.
    """

    centre: Point
    lung_ml: float
    lung_mm: Point
    cut_above: bool
    cut_below: bool

    @property
    def warnings(self) -> list[str]:
        """What makes the centre uncertain, one phrase each."""
        cuts = (("upper", self.cut_above), ("lower", self.cut_below))
        found = [f"the lungs reach the {end} end of the scan" for end, cut in cuts if cut]
        if not found and self.lung_mm[2] < LOWEST_LUNGS_MM:
            found.append(f"the lungs seem only {self.lung_mm[2]:.0f} mm tall: part of them may not look like lung")
        return found


def find_thorax(volume: Volume) -> Thorax:
    """Find the lungs, and the trunk around them, at 4 mm.

    Raises:
        BadInput: the scan shows no lungs: less than 500 ml of lung tissue enclosed by a body.
    """
    coarse = _at_search_spacing(volume)
    hu = coarse.array
    body = find_body(hu > BODY_HU)
    lungs = _lungs(body & (hu > LUNG_HU[0]) & (hu < LUNG_HU[1]))
    voxel_ml = float(np.prod(coarse.grid.spacing)) / 1000
    lung_ml = float(lungs.sum()) * voxel_ml
    if lung_ml < SMALLEST_LUNGS_ML:
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
    low, high = volume.grid.corners.min(0), volume.grid.corners.max(0)
    x, y, z = (max(2, round(float(extent) / SEARCH_SPACING)) for extent in high - low)
    return volume.resample(VolumeGrid.box((low + high) / 2, (z, y, x), SEARCH_SPACING))


def find_body(dense: np.ndarray, opening: int = 2, closing: int = 2) -> np.ndarray:
    """The largest piece of dense voxels, free of the table by an opening, its cavities filled slice by slice.

    Args:
        dense: mask (z, y, x).
        opening: half the thickness in voxels of what is taken away.
        closing: half the width in voxels of the openings that are closed.

    Returns:
        Mask (z, y, x).
    """
    opened = ndimage.binary_opening(dense, iterations=opening)
    labels, count = ndimage.label(opened)
    if count == 0:
        return opened
    body = labels == 1 + np.argmax(ndimage.sum_labels(opened, labels, np.arange(1, count + 1)))
    # Closing first lets an airway or a lung that a thin wall separates from the outside be filled too.
    body = ndimage.binary_closing(np.pad(body, closing), iterations=closing)[(slice(closing, -closing),) * 3]
    # A narrow field of view cuts the flanks off: its left and right edges count as body, so that a lung open to
    # one of them is a cavity all the same.
    sides = ((0, 0), (1, 1))
    return np.stack([ndimage.binary_fill_holes(np.pad(s, sides, constant_values=True))[:, 1:-1] for s in body])


def _lungs(candidates: np.ndarray) -> np.ndarray:
    """The largest piece and those at its height that hold a tenth of its voxels: both lungs, no bowel gas."""
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
    """In each slice, the pieces of the body that hold lung: not an arm beside them."""
    slices = []
    for whole, lung in zip(body, lungs, strict=True):
        labels, _ = ndimage.label(whole)
        slices.append(np.isin(labels, np.unique(labels[lung & whole])) & whole)
    return np.stack(slices)


def _extent(mask: np.ndarray, axis: int) -> tuple[int, int]:
    along = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
    return int(along[0]), int(along[-1])


def _typical_extent(mask: np.ndarray, axis: int) -> tuple[float, float]:
    """Median over the slices of where the mask begins and ends along `axis`, so that arms in a few don't count."""
    across = np.any(mask, axis=3 - axis)  # (z, axis)
    along = across[np.any(across, axis=1)]
    first = along.argmax(1)
    last = along.shape[1] - 1 - along[:, ::-1].argmax(1)
    return float(np.median(first)), float(np.median(last))
