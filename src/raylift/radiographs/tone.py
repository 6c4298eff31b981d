"""Conversion of grey levels, of unknown exposure and display processing, to line integrals of attenuation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from raylift.errors import BadInput
from raylift.geometry import View
from raylift.images.tone_curve import ToneCurve
from raylift.radiographs.field import collimated_border, continued, open_air
from raylift.radiographs.placement import Placement
from raylift.radiographs.radiograph import Radiograph, square

if TYPE_CHECKING:
    from raylift.radiographs.tone_network import ToneModel

# The percentiles of grey levels that are mapped to line integrals, and the line integrals that they are mapped to: the
# medians over sixteen chest CTs of these percentiles of ∫μ dl in the body, in the X-rays of a chest stand: with the
# table, without it, and cropped to the chest. Between patients they vary by 8 to 20 % (standard deviation).
PERCENTILES = (5, 25, 50, 75, 95, 99.5)
FRONTAL = (1.7, 2.6, 3.3, 4.1, 5.2, 5.4)
LATERAL = (1.6, 3.2, 4.8, 5.9, 7.3, 8.2)
LOWEST = 0.5  # percentile that is taken for air where there is no open air
SKIN = 0.015  # share of the shorter edge; so near to open air the body is too thin to count
ENOUGH = 512  # pixels along the shorter edge from which percentiles are taken
ENDS = 0.01  # share of the range of grey levels at either end that is left out: black borders, lead and letters


@dataclass(frozen=True)
class Orientation:
    """The turns that orient a picture for reading, with bone bright.

    Args:
        quarter_turns: number of quarter turns, counter-clockwise.
        mirrored: left and right are swapped after the quarter turns.
        inverted: bright and dark are swapped.
    """

    quarter_turns: int = 0
    mirrored: bool = False
    inverted: bool = False

    def turn(self, image: np.ndarray) -> np.ndarray:
        """Return an image (rows, columns) turned and mirrored, with its values as they are."""
        turned = np.rot90(image, self.quarter_turns)
        return np.ascontiguousarray(turned[:, ::-1] if self.mirrored else turned)

    def __str__(self) -> str:
        turn = {1: "turned to the left", 2: "turned upside down", 3: "turned to the right"}.get(self.quarter_turns)
        changes = (turn, "mirrored" if self.mirrored else None, "inverted" if self.inverted else None)
        return ", ".join(change for change in changes if change)


@dataclass(frozen=True)
class Grey:
    """A decoded radiograph whose values are grey levels.

    Args:
        path: of the file, for messages.
        levels: (rows, columns), float32; they rise with attenuation as far as the file declares it.
        pixel_mm: see `Radiograph`.
        facts: what was assumed of the image and done to it so far.
        view: see `Radiograph`.
        distances: see `Radiograph`.
        at_axis: see `Radiograph`.
        placement: see `Radiograph`.
        polarity_known: the file declares which end of the scale is bone.
        exposed: mask of the pixels that X-rays reached; None where all did.
    """

    path: Path
    levels: np.ndarray
    pixel_mm: float | None = None
    facts: tuple[str, ...] = ()
    view: View | None = None
    distances: tuple[float | None, float] | None = None
    at_axis: bool = False
    placement: Placement | None = None
    polarity_known: bool = False
    exposed: np.ndarray | None = None

    def oriented(self, orientation: Orientation) -> Grey:
        """Return these grey levels turned, mirrored and inverted as the orientation says."""
        levels = orientation.turn(self.levels)
        levels = levels.max() - levels if orientation.inverted else levels
        facts = (*self.facts, str(orientation)) if str(orientation) else self.facts
        placement = self.placement and self.placement.turned(orientation.quarter_turns, orientation.mirrored)
        exposed = None if self.exposed is None else orientation.turn(self.exposed)
        return replace(self, levels=levels, facts=facts, placement=placement, exposed=exposed)

    def line_integrals(self, view: View, tone_model: ToneModel | None = None) -> Radiograph:
        """Return the line integrals that these grey levels stand for.

        Beyond the exposed field, and behind collimated borders, the nearest exposed value holds.

        Args:
            view: of the picture, which is oriented for reading.
            tone_model: recognises the tone curve; without it, open air becomes 0, and the percentiles of all other
                pixels are mapped to those of simulated radiographs (`FRONTAL`, `LATERAL`).

        Raises:
            BadInput: the image has too few grey levels.
        """
        if (count := len(np.unique(self.levels))) < 8:
            raise BadInput(self.path, f"only {count} grey levels", "give a radiograph, not a mask")
        border = collimated_border(self.levels)
        exposed = ~border if self.exposed is None else self.exposed & ~border
        curve, note = self._usual_curve(exposed, view.lateral)
        if tone_model is not None:
            curve = tone_model.curve(self.levels, exposed, view.oriented)
            note = "grey levels converted to line integrals by a tone curve recognised from the picture"
        image = continued(curve(self.levels), exposed)
        cropped = ("collimated borders left out",) if border.any() else ()
        note = ", ".join([note, *cropped, *self.facts]) + "; absolute values are approximate"
        return Radiograph(
            square(image), self.pixel_mm, note, True, self.view, self.distances, self.at_axis, self.placement, curve
        )

    def _usual_curve(self, exposed: np.ndarray, lateral: bool) -> tuple[ToneCurve, str]:
        """Return the curve that maps percentiles to those of simulated radiographs, and a note on it.

        Raises:
            BadInput: the image has too few grey levels.
        """
        step = max(1, min(self.levels.shape) // ENOUGH)
        levels, field = self.levels[::step, ::step], exposed[::step, ::step]
        air, air_level = open_air(levels, field)
        beside_air = ndimage.maximum_filter(air, 1 + 2 * round(SKIN * min(air.shape)))
        low, high = float(self.levels.min()), float(self.levels.max())
        margin = ENDS * (high - low)
        body = levels[field & ~beside_air & (levels > low + margin) & (levels < high - margin)]
        if not len(body):
            raise BadInput(self.path, "nearly all pixels are black or white", "give a radiograph, not a mask")
        values = LATERAL if lateral else FRONTAL
        air_level = float(np.percentile(body, LOWEST)) if air_level is None else air_level
        # Where percentiles are equal, as with few grey levels, the first of their values counts.
        knots, first = np.unique([air_level, *np.percentile(body, PERCENTILES)], return_index=True)
        if len(knots) < 2:
            raise BadInput(self.path, "nearly all pixels have one grey level", "give a radiograph")
        kind = "lateral" if lateral else "frontal"
        note = (
            f"grey levels converted to line integrals by mapping their 5th, 50th and 95th percentile in the body to "
            f"{values[0]}, {values[2]} and {values[4]}, as in simulated {kind} chest radiographs"
        )
        return ToneCurve(knots, np.array([0.0, *values])[first]), note
