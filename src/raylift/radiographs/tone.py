"""Conversion of grey levels, of unknown exposure and display processing, to line integrals of attenuation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from raylift.errors import BadInput
from raylift.geometry import View
from raylift.radiographs.radiograph import Radiograph, square

# The percentiles of grey levels that are mapped to line integrals, and the line integrals that they are mapped to: the
# medians over twelve chest CTs of these percentiles of ∫μ dl within the body (parallel projection along y and x, table
# removed, μ = 0.02 mm⁻¹ · (1 + HU/1000)). The 50th percentile differs by up to a quarter between patients. The lowest
# percentile is open air.
PERCENTILES = (0.5, 5, 50, 95, 99.5)
FRONTAL = (0.0, 1.3, 3.2, 5.1, 5.4)
LATERAL = (0.0, 2.0, 5.4, 7.8, 8.6)
SHADE = 0.98  # share of white pixels from which a line at the border is taken to lie behind a collimator


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
        polarity_known: the file declares which end of the scale is bone.
    """

    path: Path
    levels: np.ndarray
    pixel_mm: float | None = None
    facts: tuple[str, ...] = ()
    view: View | None = None
    distances: tuple[float | None, float] | None = None
    at_axis: bool = False
    polarity_known: bool = False

    def oriented(self, orientation: Orientation) -> Grey:
        """Return these grey levels turned, mirrored and inverted as the orientation says."""
        levels = np.rot90(self.levels, orientation.quarter_turns)
        levels = levels[:, ::-1] if orientation.mirrored else levels
        levels = levels.max() - levels if orientation.inverted else levels
        facts = (*self.facts, str(orientation)) if str(orientation) else self.facts
        return replace(self, levels=np.ascontiguousarray(levels), facts=facts)

    def line_integrals(self, lateral: bool) -> Radiograph:
        """Return the line integrals that these grey levels stand for.

        Their percentiles, without collimated borders, are mapped to those of simulated radiographs (`FRONTAL`,
        `LATERAL`).

        Args:
            lateral: the image shows a lateral view, in which the body is thicker.

        Raises:
            BadInput: the image has too few grey levels.
        """
        if (count := len(np.unique(self.levels))) < 8:
            raise BadInput(self.path, f"only {count} grey levels", "give a radiograph, not a mask")
        low, high = float(self.levels.min()), float(self.levels.max())
        shaded = _shaded((self.levels - low) / (high - low))
        grey = np.where(shaded, low, self.levels)
        # The ends of the range are left out: open air and black borders at one, lead and letters at the other.
        margin = 0.01 * (high - low)
        exposed = grey[(grey > low + margin) & (grey < high - margin)]
        if not len(exposed):
            raise BadInput(self.path, "nearly all pixels are black or white", "give a radiograph, not a mask")
        # Where percentiles are equal, as with few grey levels, the first of their values counts.
        knots, first = np.unique(np.percentile(exposed, PERCENTILES), return_index=True)
        if len(knots) < 2:
            raise BadInput(self.path, "nearly all pixels have one grey level", "give a radiograph")
        values = LATERAL if lateral else FRONTAL
        image = np.interp(grey, knots, np.asarray(values)[first]).astype(np.float32)
        kind = "lateral" if lateral else "frontal"
        note = (
            f"grey levels converted to line integrals by mapping their 5th, 50th and 95th percentile to {values[1]}, "
            f"{values[2]} and {values[3]}, as in simulated {kind} chest radiographs"
        )
        cropped = ("collimated borders left out",) if shaded.any() else ()
        note = ", ".join([note, *cropped, *self.facts]) + "; absolute values are approximate"
        return Radiograph(square(image), self.pixel_mm, note, True, self.view, self.distances, self.at_axis)


def _shaded(grey: np.ndarray) -> np.ndarray:
    """Return a mask of the pixels behind a collimator, for grey levels (rows, columns) in [0, 1].

    A collimator shows as white lines along the border.
    """
    shaded = np.zeros(grey.shape, bool)
    for levels, mask in ((grey, shaded), (grey.T, shaded.T)):
        white = (levels > 0.999).mean(1) >= SHADE
        mask[: np.argmin(white)] = True
        mask[len(white) - np.argmin(white[::-1]) :] = True
    return shaded
