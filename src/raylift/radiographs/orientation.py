"""How a picture without a word about itself was taken: the way in which it looks most like the training's X-rays.

Its grey levels are taken for line integrals as they are, but for their range: matched histograms would make a wrong way
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

# Found on pictures of twelve patients' frontal and lateral X-rays and of two real ones: frontal ones are 2 to 4 times
# stranger as lateral, lateral ones 0.6 to 1.2 times as strange as lateral as frontal.
FRONTAL = 1.5  # times stranger as a lateral, from which a picture is a frontal one
BETTER = 0.9  # OOD score, as a share of that of the picture as it is, below which it is turned, or inverted
MOST = (5.5, 8.0)  # line integrals of the brightest in a frontal and a lateral picture
RANGE = (0.1, 99.9)  # percentiles of the grey levels; what is beyond them counts as they do: letters, lead
SMALL = 128  # pixels along the shorter edge are enough
SURE = 1.1  # ratio to either of these from which there is certain


@dataclass(frozen=True)
class Guess:
    """What a picture shows, as far as it can be told.

    Which side of a frontal picture is the patient's left cannot: it is taken to are oriented for reading.

    Args:
        view: "pa" or "lateral-left".
        orientation: what turns it for reading.
        ood_score: of the picture so oriented (see `raylift.radiographs.out_of_distribution`).
        sure: nothing else comes near.
    """

    view: View
    orientation: Orientation
    ood_score: float
    sure: bool


def guess(grey: Grey, ood_detector: OODDetector) -> Guess:
    """Try a picture upright and turned, with bone bright and dark, as frontal and as lateral from either side.

    Raises:
        BadInput: it has too few grey levels.
    """
    step = max(1, min(grey.levels.shape) // SMALL)
    grey = replace(grey, levels=grey.levels[::step, ::step])
    found: dict[tuple[int, bool], Guess] = {}
    polarities = (False,) if grey.polarity_known else (False, True)
    for turns, inverted in product(range(4), polarities):
        frontal = _ood_score(grey, ood_detector, View.parse("pa"), Orientation(turns, False, inverted))
        lateral, mirrored = min(
            (_ood_score(grey, ood_detector, View.parse("lateral-left"), Orientation(turns, side, inverted)), side)
            for side in (False, True)
        )
        ratio = lateral / max(frontal, 1e-9)
        nearest = min(frontal, lateral)
        if ratio > FRONTAL:
            one = Guess(View.parse("pa"), Orientation(turns, False, inverted), nearest, ratio / FRONTAL > SURE)
        else:
            one = Guess(
                View.parse("lateral-left"), Orientation(turns, mirrored, inverted), nearest, FRONTAL / ratio > SURE
            )
        found[turns, inverted] = one
    as_it_is = found[0, False]
    best = min(found.values(), key=lambda one: one.ood_score)
    chosen = best if best.ood_score < BETTER * as_it_is.ood_score else as_it_is
    others = min(one.ood_score for one in found.values() if one is not chosen)
    return replace(chosen, sure=chosen.sure and others / max(chosen.ood_score, 1e-9) > SURE)


def _ood_score(grey: Grey, ood_detector: OODDetector, view: View, orientation: Orientation) -> float:
    levels = grey.oriented(orientation).levels
    low, high = np.percentile(levels, RANGE)
    image = square(MOST[view.lateral] * np.clip((levels - low) / max(high - low, 1e-9), 0, 1))
    return float(ood_detector.distances(image[None], [view.oriented])[0])
