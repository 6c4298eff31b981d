"""From grey levels, as an unknown exposure and a display made them, to line integrals of attenuation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from skimage.filters import threshold_otsu
from skimage.segmentation import clear_border

from raylift.errors import BadInput
from raylift.geometry import View
from raylift.radiographs.radiograph import Radiograph, square

# Where the grey levels of a body are tied to line integrals: percentiles, and the medians over twelve chest CTs, from
# both sides, of these percentiles of ∫μ dl where it is above 0.3 (`chest-stand`, μ = 0.02 mm⁻¹ · (1 + HU/1000)). The
# middle one differs by up to a quarter between patients.
PERCENTILES = (2, 10, 25, 50, 75, 90, 98)
FRONTAL = (0.7, 2.0, 2.8, 3.6, 4.4, 5.2, 5.5)
LATERAL = (0.4, 0.8, 2.2, 4.9, 6.0, 6.6, 8.2)
RANGE = (0.1, 99.9)  # percentiles of all grey levels; what is beyond them counts as they do: letters, lead
SHADE = 0.98  # share of a line at the border that is as bright as can be: it lies behind a collimator


@dataclass(frozen=True)
class Hanging:
    """What makes a picture hang for reading, with bone bright.

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

    def hung(self, hanging: Hanging) -> Grey:
        """The same, turned, mirrored and inverted."""
        levels = np.rot90(self.levels, hanging.quarter_turns)
        levels = levels[:, ::-1] if hanging.mirrored else levels
        levels = levels.max() - levels if hanging.inverted else levels
        facts = (*self.facts, str(hanging)) if str(hanging) else self.facts
        return replace(self, levels=np.ascontiguousarray(levels), facts=facts)

    def line_integrals(self, lateral: bool) -> Radiograph:
        """By matching the histogram of the body to that of simulated radiographs (`FRONTAL`, `LATERAL`).

        The body is what is left without collimated borders, which are white, and open air, which is dark and reaches
        the border. Air ends at 0.

        Args:
            lateral: the image shows a lateral view, in which the body is thicker.

        Raises:
            BadInput: there are not enough grey levels.
        """
        if (count := len(np.unique(self.levels))) < 8:
            raise BadInput(self.path, f"only {count} grey levels", "give a radiograph, not a mask")
        low, high = np.percentile(self.levels, RANGE)
        if low == high:
            raise BadInput(self.path, "nearly all pixels have one grey level", "give a radiograph, not a mask")
        grey = np.clip((self.levels - low) / (high - low), 0, 1)
        shaded = _shaded(grey)
        grey[shaded] = 0
        body = ~(_air(grey) | shaded)
        if not body.any():
            raise BadInput(self.path, "nearly all pixels are black or white", "give a radiograph, not a mask")
        values = LATERAL if lateral else FRONTAL
        # Equal percentiles, as of few grey levels, keep the first of their values.
        knots, first = np.unique(np.percentile(grey[body], PERCENTILES), return_index=True)
        knots, values_at = np.append(min(0, knots[0] - 1e-3), knots), np.append(0, np.asarray(values)[first])
        image = np.interp(grey, knots, values_at).astype(np.float32)
        kind = "lateral" if lateral else "frontal"
        note = (
            f"grey levels brought to line integrals by the histogram of the body, whose 10th, 50th and 90th percentile "
            f"become {values[1]}, {values[3]} and {values[5]} as in simulated {kind} chest radiographs"
        )
        cropped = ("collimated borders left out",) if shaded.any() else ()
        note = ", ".join([note, *cropped, *self.facts]) + "; absolute values are approximate"
        return Radiograph(square(image), self.pixel_mm, note, True, self.view, self.distances)


def _shaded(grey: np.ndarray) -> np.ndarray:
    """Which pixels (rows, columns) of grey levels in [0, 1] lie behind a collimator: white lines along the border."""
    shaded = np.zeros(grey.shape, bool)
    for turned, marked in ((grey, shaded), (grey.T, shaded.T)):
        white = (turned > 0.99).mean(1) >= SHADE
        marked[: np.argmin(white)] = True
        marked[len(white) - np.argmin(white[::-1]) :] = True
    return shaded


def _air(grey: np.ndarray) -> np.ndarray:
    """Which pixels (rows, columns) are open air: the darkest of the dark ones (Otsu, twice) that reach the border."""
    dark = grey[grey < threshold_otsu(grey)]
    if not len(dark) or dark.min() == dark.max():
        return np.zeros(grey.shape, bool)
    darkest = grey < threshold_otsu(dark)
    air: np.ndarray = darkest & ~clear_border(darkest)
    return air
