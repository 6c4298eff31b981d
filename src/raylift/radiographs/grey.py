"""From grey levels, as an unknown exposure and a display made them, to line integrals of attenuation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from raylift.errors import BadInput
from raylift.radiographs.radiograph import Radiograph, square

# Where the grey levels of a photograph are tied to line integrals: percentiles, and the medians over twelve
# chest CTs of these percentiles of ∫μ dl in the body's shadow (parallel projection along y and x, table
# removed, μ = 0.02 mm⁻¹ · (1 + HU/1000)). The 50th percentile differs by up to a quarter between patients.
# The lowest is open air.
PERCENTILES = (0.5, 5, 50, 95, 99.5)
FRONTAL = (0.0, 1.3, 3.2, 5.1, 5.4)
LATERAL = (0.0, 2.0, 5.4, 7.8, 8.6)


def from_grey(path: Path, grey: np.ndarray, pixel_mm: float | None, lateral: bool, *facts: str) -> Radiograph:
    """Line integrals from grey levels (rows, columns) that rise with attenuation."""
    levels = np.unique(grey)
    if len(levels) < 8:
        raise BadInput(path, f"only {len(levels)} grey levels", "give a radiograph, not a mask")
    # Open air and black borders lie at one end of the range, lead and collimators at the other: not the body.
    margin = 0.01 * (levels[-1] - levels[0])
    exposed = grey[(grey > levels[0] + margin) & (grey < levels[-1] - margin)]
    if not len(exposed):
        raise BadInput(path, "nearly all pixels are black or white", "give a radiograph, not a mask")
    # Equal percentiles, as of few grey levels, keep the first of their values.
    knots, first = np.unique(np.percentile(exposed, PERCENTILES), return_index=True)
    if len(knots) < 2:
        raise BadInput(path, "nearly all pixels have one grey level", "give a radiograph")
    values = LATERAL if lateral else FRONTAL
    image = np.interp(grey, knots, np.asarray(values)[first]).astype(np.float32)
    kind = "lateral" if lateral else "frontal"
    note = (
        f"grey levels brought to line integrals by tying their 5th, 50th and 95th percentile to {values[1]}, "
        f"{values[2]} and {values[3]}, as in simulated {kind} chest radiographs"
    )
    note = ", ".join([note, *(fact for fact in facts if fact)]) + "; absolute values are approximate"
    return Radiograph(square(image), pixel_mm, note, hung=True)
