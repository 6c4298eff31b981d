"""The scale of a radiograph, told by its chest: chests of adults differ little in size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from raylift.geometry import View
from raylift.radiographs.out_of_distribution import OOD_THRESHOLD, OODDetector
from raylift.radiographs.placement import place

FACTORS = np.exp(np.arange(-20, 21) * 0.05)  # sizes that are tried, as multiples of the stated one
PIXELS = 128  # along an edge of the images that are tried
SIMILAR = 1.25  # factor between scores within which sizes fit equally well
UNUSUAL = 1.5  # ratio of scores from which a stated size is implausible
UNUSUAL_SIZE = 0.3  # logarithm of a chest's relative size from which it is; patients differ by 0.1 (standard deviation)
FRAME = 0.5  # weight of the squared logarithm of a picture's size relative to the detector
MOST = 0.8  # logarithm of the relative size from which an estimate lies at the end of what is tried, and is none
OTHER = 1.3  # ratio of scores from which an assumed size is replaced by the estimated one


@dataclass(frozen=True)
class Scale:
    """The size at which an X-ray is most like those of the training, as a multiple of its stated or assumed size.

    Args:
        factor: the multiple.
        low: the smallest multiple that fits about as well.
        high: the largest one.
        ratio: score at the stated size, over that at this one.
        ood_score: at this size.
    """

    factor: float
    low: float
    high: float
    ratio: float
    ood_score: float

    @property
    def implausible(self) -> bool:
        """Whether the stated size is that of no chest, while another one is."""
        known = self.ood_score < OOD_THRESHOLD and self.ratio > UNUSUAL
        return known and abs(math.log(self.factor)) > UNUSUAL_SIZE

    @property
    def differs(self) -> bool:
        """Whether the size fits clearly better than the assumed one."""
        return self.ood_score < OOD_THRESHOLD and self.ratio > OTHER and abs(math.log(self.factor)) < MOST


def estimate_scale(image: np.ndarray, share: float, view: View, ood_detector: OODDetector) -> Scale:
    """Return the size at which an X-ray is most like those of the training.

    Args:
        image: line integrals (rows, rows).
        share: the stated or assumed edge of the image, as a share of the detector's.
        view: of the image.
        ood_detector: of the weights.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(image))[None, None]
    small = F.interpolate(tensor, (PIXELS, PIXELS), mode="area")[0, 0].numpy()
    tried = [place(small, round(PIXELS / share / factor)) for factor in FACTORS]
    distances = np.concatenate([ood_detector.distances(one[None], [view]) for one in tried])
    # A small part of a picture may look like a chest too, but pictures show a chest on about a whole detector.
    scores = np.sqrt(distances**2 + FRAME * np.log(share * FACTORS) ** 2)
    best, stated = int(scores.argmin()), len(FACTORS) // 2
    worse = np.flatnonzero(scores > SIMILAR * scores[best])
    low, high = worse[worse < best].max(initial=-1) + 1, worse[worse > best].min(initial=len(FACTORS)) - 1
    low_factor, factor, high_factor = (float(FACTORS[k]) for k in (low, best, high))
    return Scale(factor, low_factor, high_factor, float(scores[stated] / scores[best]), float(distances[best]))
