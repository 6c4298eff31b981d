"""From grey levels, as an unknown exposure and a display made them, to line integrals of attenuation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from raylift.errors import BadInput
from raylift.geometry import View
from raylift.radiographs.radiograph import Radiograph, square

# Where the grey levels of a photograph are tied to line integrals: percentiles, and the medians over twelve
# chest CTs of these percentiles of ∫μ dl in the body's shadow (parallel projection along y and x, table
# removed, μ = 0.02 mm⁻¹ · (1 + HU/1000)). The 50th percentile differs by up to a quarter between patients.
# The lowest is open air.
PERCENTILES = (0.5, 5, 50, 95, 99.5)
FRONTAL = (0.0, 1.3, 3.2, 5.1, 5.4)
LATERAL = (0.0, 2.0, 5.4, 7.8, 8.6)
SHADE = 0.98  # share of a line at the border that is as bright as can be: it lies behind a collimator


@dataclass(frozen=True)
class Orientation:
    """What makes a picture are oriented for reading, with bone bright.

    Args:
        quarter_turns: counter-clockwise.
        mirrored: left and right swapped after that.
        inverted: bright and dark swapped.
    """

    quarter_turns: int = 0
    mirrored: bool = False
    inverted: bool = False

    def __str__(self) -> str:
        turned = {1: "turned to the left", 2: "turned upside down", 3: "turned to the right"}.get(self.quarter_turns)
        done = (turned, "mirrored" if self.mirrored else None, "inverted" if self.inverted else None)
        return ", ".join(part for part in done if part)


@dataclass(frozen=True)
class Grey:
    """A decoded radiograph whose values are grey levels.

    Args:
        path: of the file, for messages.
        levels: (rows, columns), float32, rising with attenuation as far as the file says.
        pixel_mm: see `Radiograph`.
        facts: what was done to it so far.
        view: see `Radiograph`.
        distances: see `Radiograph`.
        polarity_known: the file says which end of the scale is bone.
    """

    path: Path
    levels: np.ndarray
    pixel_mm: float | None = None
    facts: tuple[str, ...] = ()
    view: View | None = None
    distances: tuple[float, float] | None = None
    polarity_known: bool = False

    def oriented(self, orientation: Orientation) -> Grey:
        """The same, turned, mirrored and inverted."""
        levels = np.rot90(self.levels, orientation.quarter_turns)
        levels = levels[:, ::-1] if orientation.mirrored else levels
        levels = levels.max() - levels if orientation.inverted else levels
        facts = (*self.facts, str(orientation)) if str(orientation) else self.facts
        return replace(self, levels=np.ascontiguousarray(levels), facts=facts)

    def line_integrals(self, lateral: bool) -> Radiograph:
        """By tying percentiles to those of simulated radiographs (`FRONTAL`, `LATERAL`), collimated borders left out.

        Args:
            lateral: the image shows a lateral view, in which the body is thicker.

        Raises:
            BadInput: there are not enough grey levels.
        """
        if (count := len(np.unique(self.levels))) < 8:
            raise BadInput(self.path, f"only {count} grey levels", "give a radiograph, not a mask")
        low, high = float(self.levels.min()), float(self.levels.max())
        shaded = _shaded((self.levels - low) / (high - low))
        grey = np.where(shaded, low, self.levels)
        # Open air and black borders lie at one end of the range, lead and letters at the other: not the body.
        margin = 0.01 * (high - low)
        exposed = grey[(grey > low + margin) & (grey < high - margin)]
        if not len(exposed):
            raise BadInput(self.path, "nearly all pixels are black or white", "give a radiograph, not a mask")
        # Equal percentiles, as of few grey levels, keep the first of their values.
        knots, first = np.unique(np.percentile(exposed, PERCENTILES), return_index=True)
        if len(knots) < 2:
            raise BadInput(self.path, "nearly all pixels have one grey level", "give a radiograph")
        values = LATERAL if lateral else FRONTAL
        image = np.interp(grey, knots, np.asarray(values)[first]).astype(np.float32)
        kind = "lateral" if lateral else "frontal"
        note = (
            f"grey levels brought to line integrals by tying their 5th, 50th and 95th percentile to {values[1]}, "
            f"{values[2]} and {values[3]}, as in simulated {kind} chest radiographs"
        )
        cropped = ("collimated borders left out",) if shaded.any() else ()
        note = ", ".join([note, *cropped, *self.facts]) + "; absolute values are approximate"
        return Radiograph(square(image), self.pixel_mm, note, True, self.view, self.distances)


def _shaded(grey: np.ndarray) -> np.ndarray:
    """Which pixels (rows, columns) of grey levels in [0, 1] lie behind a collimator: white lines along the border."""
    shaded = np.zeros(grey.shape, bool)
    for turned, marked in ((grey, shaded), (grey.T, shaded.T)):
        white = (turned > 0.999).mean(1) >= SHADE
        marked[: np.argmin(white)] = True
        marked[len(white) - np.argmin(white[::-1]) :] = True
    return shaded
