"""Clinical measures of a volume: tissues, lungs, bones, the heart's width, structure and sharpness.

All functions take volumes in HU as arrays (z, y, x): z superior, y posterior, x left. `clinical_measures` clips both
volumes to [-1000, 1000] HU (`raylift.images.hounsfield.WINDOW`) first. Masks are made by the same thresholds in
truth and prediction; they serve to compare methods, not for diagnosis.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import ndimage
from torchmetrics.functional.image import visual_information_fidelity

from raylift.data.thorax import find_body
from raylift.images.hounsfield import WINDOW

# HU from (included) and to (excluded). Lung: from the end of emphysema and air (Gevenois et al., AJRCCM 1996) to the
# end of normal inflation (Cressoni et al., Critical Care 2013). Fat and soft tissue: the ranges of adipose tissue and
# muscle in studies of body composition (Aubrey et al., Acta Physiologica 2014). Bone: all above muscle, enhanced blood
# included.
TISSUES = {
    "lung": (-950.0, -500.0),
    "fat": (-190.0, -29.0),
    "soft_tissue": (-29.0, 150.0),
    "bone": (150.0, math.inf),
}
AIR_LIKE = TISSUES["lung"][1]  # below: air and inflated lung; halfway from air to water, so that blur moves no border
BONE = TISSUES["bone"][0]
SMALLEST_LUNG_ML = 50.0
THIN_MM = 5.0  # half the thickness of the structures that an opening removes: the table's shells, clothes
HEART_LEVELS = (0.25, 0.5)  # shares of the lungs' volume, from below
SMALLEST_VIF_EDGE = 41  # voxels


def clinical_measures(
    volume_hu: np.ndarray, truth_hu: np.ndarray, spacing: tuple[float, float, float]
) -> dict[str, float]:
    """Return all measures of this module for one case.

    Args:
        volume_hu: prediction (z, y, x) in HU; clipped to [-1000, 1000].
        truth_hu: true volume in HU on the same grid; clipped likewise.
        spacing: of the grid along (x, y, z) in mm, see `raylift.geometry.VolumeGrid`.

    Returns:
        The measures by name. A measure of something that the truth does not contain is left out:

        - "mae_lung_hu", "mae_fat_hu", "mae_soft_tissue_hu", "mae_bone_hu": mean absolute error in HU of the voxels
          that are this tissue in the truth (`TISSUES`; voxels that border on air can have the value of another tissue);
        - "dice_lungs", "dice_bones": in [0, 1], 1 for the same mask;
        - "lung_volume_error", "bone_volume_error": (predicted − true) / true volume;
        - "heart_width_error_mm": predicted − true `heart_width`, left out if the prediction has no lungs there;
        - "vif": `vif`, left out below 41 voxels;
        - "sharpness": mean gradient magnitude of the prediction over that of the truth; 1 is as sharp, less is
          blurred. Noise counts as sharpness.

    Raises:
        ValueError: the volumes differ in shape.
    """
    if volume_hu.shape != truth_hu.shape:
        raise ValueError(f"prediction {volume_hu.shape} and truth {truth_hu.shape} differ in shape")
    volume, truth = (np.clip(array, *WINDOW).astype(np.float32) for array in (volume_hu, truth_hu))
    measures: dict[str, float] = {}
    for tissue, (low, high) in TISSUES.items():
        voxels = (truth >= low) & (truth < high)
        if voxels.any():
            measures[f"mae_{tissue}_hu"] = float(np.abs(volume[voxels] - truth[voxels]).mean(dtype=np.float64))

    lungs, true_lungs = find_lungs(volume, spacing), find_lungs(truth, spacing)
    for name, mask, true_mask in (("lung", lungs, true_lungs), ("bone", volume >= BONE, truth >= BONE)):
        if true_mask.any():
            measures[f"dice_{name}s"] = dice(mask, true_mask)
            measures[f"{name}_volume_error"] = float(mask.sum() / true_mask.sum()) - 1
    widths = [heart_width(mask, true_lungs, spacing) for mask in (lungs, true_lungs)]
    if widths[0] is not None and widths[1] is not None:
        measures["heart_width_error_mm"] = widths[0] - widths[1]

    if min(truth.shape) >= SMALLEST_VIF_EDGE and (truth >= AIR_LIKE).any():
        measures["vif"] = vif(volume, truth)
    sharp = mean_gradient(truth, spacing)
    if sharp > 0:
        measures["sharpness"] = mean_gradient(volume, spacing) / sharp
    return measures


def dice(mask: np.ndarray, true_mask: np.ndarray) -> float:
    """Return Dice's coefficient ``2|A ∩ B| / (|A| + |B|)`` of two masks, not both empty (Dice, Ecology 1945)."""
    return float(2 * (mask & true_mask).sum() / (mask.sum() + true_mask.sum()))


def find_lungs(hu: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Return a mask of the lungs: air-like voxels (below -500 HU) within the body, in pieces that are not mere air.

    A piece has at least 50 mL and a mean of at least -950 HU, so that the air between a back and a thick table, or in a
    bowel, is no lung.

    The body is the largest dense piece; an opening separates it from the table, and its cavities are filled in each
    axial slice. Air that is connected, within a slice, to the air in front of or behind the patient is no lung. The
    left and the right face of the volume count as body, so that a lung cut off there is still found; a cut at the lower
    or upper face changes nothing in a slice. A gap in the chest wall narrower than 20 mm is closed; through a wider one
    the lung is lost in that slice. Bronchi, and a trachea connected to the lungs, are included.

    Args:
        hu: volume (z, y, x) in HU.
        spacing: along (x, y, z) in mm.

    Returns:
        Mask (z, y, x).
    """
    air = hu < AIR_LIKE
    steps = max(1, round(THIN_MM / min(spacing)))
    margin = 2 * steps
    dense = np.pad(~air, margin, mode="edge")  # the body goes on beyond the faces
    body = find_body(dense, steps, 2 * steps)[(slice(margin, -margin),) * 3]

    labels, count = ndimage.label(air & body)
    sizes_ml = np.bincount(labels.ravel(), minlength=count + 1) * math.prod(spacing) / 1000
    means = ndimage.mean(hu, labels, np.arange(count + 1))
    is_lung = (sizes_ml >= SMALLEST_LUNG_ML) & (means >= TISSUES["lung"][0])
    is_lung[0] = False
    lungs: np.ndarray = is_lung[labels]
    return lungs


def heart_width(lungs: np.ndarray, true_lungs: np.ndarray, spacing: tuple[float, float, float]) -> float | None:
    """Return the width in mm of the heart's shadow: the gap between the lungs at the levels of the heart.

    In an axial slice, it is the widest stretch along x without lung that has lung at both ends and contains the middle
    of the true lungs' extent along x. Only the middle half of their extent along y counts, since the gap at their tips
    in front and behind is not the heart. The result is the median over the slices of the second quarter of the true
    lungs' volume, counted from below: above the diaphragm, below the hila. Levels, middle and depth are the truth's for
    the prediction too. The width is that of a cardiothoracic ratio, with tissue beside the heart, to about a voxel.

    Args:
        lungs: mask (z, y, x) whose gap is measured.
        true_lungs: mask of the same shape, which defines levels, middle and depth.
        spacing: along (x, y, z) in mm.

    Returns:
        The width; None if no slice at these levels has lung on both sides.
    """
    if not true_lungs.any():
        return None
    below = np.cumsum(true_lungs.sum(axis=(1, 2))) / true_lungs.sum()
    levels = (below > HEART_LEVELS[0]) & (below <= HEART_LEVELS[1])
    if not levels.any():
        return None
    (front, back), (first, last) = (np.flatnonzero(true_lungs[levels].any(axis=(0, a)))[[0, -1]] for a in (2, 1))
    depth, middle = back - front, (first + last) // 2
    rows = lungs[levels, front + depth // 4 : back - depth // 4 + 1]
    right, left = rows[..., middle::-1], rows[..., middle:]  # both from the middle outwards
    gap = np.where(right.any(-1) & left.any(-1), right.argmax(-1) + left.argmax(-1) - 1, 0)
    widest = gap.max(axis=1)
    return float(np.median(widest[widest > 0]) * spacing[0]) if (widest > 0).any() else None


def vif(volume: np.ndarray, truth: np.ndarray) -> float:
    """Return the visual information fidelity in the pixel domain: the share of the slices' information that is kept.

    Sheikh and Bovik, "Image information and visual quality", IEEE TIP 2006, by torchmetrics, on four scales, with the
    usual variance 2 of visual noise for values of 0 to 255, which stand for [-1000, 1000] HU. It falls with
    blur, which removes fine structure, and with noise; it is 1 for the truth, and can exceed 1 where contrast is higher
    than in the truth. The result is the mean over the axes z, y, x of the mean over the slices, without those in which
    the truth is only air.

    Args:
        volume: prediction (z, y, x) in [-1000, 1000] HU, at least 41 voxels along each axis.
        truth: the same shape, not all air.
    """
    along = []
    for axis in range(3):
        slices = [np.moveaxis(array, axis, 0) for array in (volume, truth)]
        body = (slices[1] >= AIR_LIKE).any(axis=(1, 2))
        low, high = WINDOW
        prediction, target = (torch.from_numpy((s[body] - low) * (255 / (high - low))).unsqueeze(1) for s in slices)
        along.append(float(visual_information_fidelity(prediction, target)))
    return float(np.mean(along))


def mean_gradient(volume: np.ndarray, spacing: tuple[float, float, float]) -> float:
    """Return the mean gradient magnitude in HU per mm of a volume (z, y, x) in HU, by central differences."""
    return float(np.sqrt(sum(g**2 for g in np.gradient(volume, *spacing[::-1]))).mean(dtype=np.float64))
