"""Recognition of the view, the orientation and the polarity of a picture that declares none of them.

Every combination is tried; the one in which the picture is most like the X-rays of the training wins. Grey levels are
scaled to the range of line integrals, but their histograms are not matched, since that would make wrong combinations
look right.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from raylift.geometry import View
from raylift.radiographs import Grey, Orientation
from raylift.radiographs.out_of_distribution import OODDetector
from raylift.radiographs.radiograph import square

# Measured on pictures of twelve patients' frontal and lateral X-rays and on two real radiographs. The OOD score of a
# frontal picture is 2 to 4 times as high when it is taken for a lateral as when it is taken for a frontal one; that of
# a lateral picture is 0.6 to 1.2 times as high.
FRONTAL_RATIO = 1.5  # ratio of the OOD scores as lateral and as frontal above which a picture is frontal
BETTER = 0.9  # share of the unchanged picture's OOD score below which the picture is turned or inverted
MOST = (5.5, 8.0)  # line integrals of the brightest pixels of a frontal and of a lateral picture
RANGE = (0.1, 99.9)  # percentiles to which grey levels are clipped: letters and lead lie beyond them
SHORT_EDGE = 128  # pixels along the shorter edge; more add nothing
SURE = 1.1  # factor by which the score must beat these thresholds to be certain


@dataclass(frozen=True)
class Guess:
    """The view and the orientation of a picture, recognised from its grey levels.

    Which side of a frontal picture is the patient's left cannot be recognised: the picture is assumed not to be
    mirrored.

    Args:
        view: "pa" or "lateral-left".
        orientation: turns the picture for reading.
        ood_score: of the picture so oriented (see `raylift.radiographs.out_of_distribution`).
        sure: no other combination has a similar score.
    """

    view: View
    orientation: Orientation
    ood_score: float
    sure: bool


def guess(grey: Grey, ood_detector: OODDetector) -> Guess:
    """Return the view, the orientation and the polarity in which a picture is most like the X-rays of the training.

    The picture is tried in four quarter turns, with bone bright and dark, as a frontal view and as a lateral one from
    either side.
    """
    step = max(1, min(grey.levels.shape) // SHORT_EDGE)
    grey = replace(grey, levels=grey.levels[::step, ::step])
    guesses: dict[tuple[int, bool], Guess] = {}
    polarities = (False,) if grey.polarity_known else (False, True)
    for turns, inverted in product(range(4), polarities):
        frontal = _ood_score(grey, ood_detector, View.parse("pa"), Orientation(turns, False, inverted))
        lateral, mirrored = min(
            (_ood_score(grey, ood_detector, View.parse("lateral-left"), Orientation(turns, side, inverted)), side)
            for side in (False, True)
        )
        ratio = lateral / max(frontal, 1e-9)
        score = min(frontal, lateral)
        if ratio > FRONTAL_RATIO:
            candidate = Guess(
                View.parse("pa"), Orientation(turns, False, inverted), score, ratio / FRONTAL_RATIO > SURE
            )
        else:
            candidate = Guess(
                View.parse("lateral-left"), Orientation(turns, mirrored, inverted), score, FRONTAL_RATIO / ratio > SURE
            )
        guesses[turns, inverted] = candidate
    unchanged = guesses[0, False]
    best = min(guesses.values(), key=lambda candidate: candidate.ood_score)
    chosen = best if best.ood_score < BETTER * unchanged.ood_score else unchanged
    others = min(candidate.ood_score for candidate in guesses.values() if candidate is not chosen)
    return replace(chosen, sure=chosen.sure and others / max(chosen.ood_score, 1e-9) > SURE)


def _ood_score(grey: Grey, ood_detector: OODDetector, view: View, orientation: Orientation) -> float:
    """Return the OOD score of a picture as an X-ray of some view, after it was turned by an orientation."""
    levels = grey.oriented(orientation).levels
    low, high = np.percentile(levels, RANGE)
    image = square(MOST[view.lateral] * np.clip((levels - low) / max(high - low, 1e-9), 0, 1))
    return float(ood_detector.distances(image[None], [view.oriented])[0])
