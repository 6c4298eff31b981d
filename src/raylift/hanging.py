"""How a picture without a word about itself was taken: the way in which it looks most like the training's X-rays.

Its grey levels are taken for line integrals as they are, but for their range: matched histograms would make a wrong way
look right.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from raylift.familiarity import Familiarity
from raylift.geometry import View
from raylift.radiographs import Grey, Hanging
from raylift.radiographs.radiograph import square

# Found on pictures of twelve patients' frontal and lateral X-rays and of two real ones: frontal ones are 2 to 4 times
# stranger as lateral, lateral ones 0.6 to 1.2 times as strange as lateral as frontal.
FRONTAL = 1.5  # times stranger as a lateral, from which a picture is a frontal one
BETTER = 0.9  # strangeness, as a share of that of the picture as it is, below which it is turned, or inverted
MOST = (5.5, 8.0)  # line integrals of the brightest in a frontal and a lateral picture
RANGE = (0.1, 99.9)  # percentiles of the grey levels; what is beyond them counts as they do: letters, lead
SMALL = 128  # pixels along the shorter edge are enough
SURE = 1.1  # ratio to either of these from which there is no doubt


@dataclass(frozen=True)
class Guess:
    """What a picture shows, as far as it can be told.

    Which side of a frontal picture is the patient's left cannot: it is taken to hang for reading.

    Args:
        view: "pa" or "lateral-left".
        hanging: what makes it hang for reading.
        strangeness: of the picture so hung (see `raylift.familiarity`).
        sure: nothing else comes near.
    """

    view: View
    hanging: Hanging
    strangeness: float
    sure: bool


def guess(grey: Grey, familiarity: Familiarity) -> Guess:
    """Try a picture upright and turned, with bone bright and dark, as frontal and as lateral from either side.

    Raises:
        BadInput: it has too few grey levels.
    """
    step = max(1, min(grey.levels.shape) // SMALL)
    grey = replace(grey, levels=grey.levels[::step, ::step])
    found: dict[tuple[int, bool], tuple[float, View, Hanging, float]] = {}
    polarities = (False,) if grey.polarity_known else (False, True)
    for turns, inverted in product(range(4), polarities):
        frontal = _strangeness(grey, familiarity, View.parse("pa"), Hanging(turns, False, inverted))
        lateral, mirrored = min(
            (_strangeness(grey, familiarity, View.parse("lateral-left"), Hanging(turns, side, inverted)), side)
            for side in (False, True)
        )
        ratio = lateral / max(frontal, 1e-9)
        if ratio > FRONTAL:
            found[turns, inverted] = (frontal, View.parse("pa"), Hanging(turns, False, inverted), ratio / FRONTAL)
        else:
            hanging = Hanging(turns, mirrored, inverted)
            found[turns, inverted] = (lateral, View.parse("lateral-left"), hanging, FRONTAL / ratio)
        found[turns, inverted] = (min(frontal, lateral), *found[turns, inverted][1:])
    as_it_is = found[0, False]
    best = min(found.values(), key=lambda one: one[0])
    chosen = best if best[0] < BETTER * as_it_is[0] else as_it_is
    others = min(one[0] for one in found.values() if one is not chosen)
    sure = min(chosen[3], others / max(chosen[0], 1e-9)) > SURE
    return Guess(chosen[1], chosen[2], chosen[0], sure)


def _strangeness(grey: Grey, familiarity: Familiarity, view: View, hanging: Hanging) -> float:
    levels = grey.hung(hanging).levels
    low, high = np.percentile(levels, RANGE)
    image = square(MOST[view.lateral] * np.clip((levels - low) / max(high - low, 1e-9), 0, 1))
    return float(familiarity.distances(image[None], [view.hung])[0])
