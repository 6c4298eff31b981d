"""One X-ray image as line integrals, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raylift.geometry import View


@dataclass(frozen=True)
class Radiograph:
    """An X-ray image.

    Args:
        image: line integrals ∫μ dl without unit, float32 ≥ 0, square (rows, columns). Row 0 is superior.
        pixel_mm: distance of pixel centres on the detector in mm, if the file says so.
        note: one sentence on where the values come from, and how far to trust them.
        oriented: made of grey levels, and oriented for reading: columns run to the patient's left in a frontal image,
            to the back in a lateral one. Columns of line integrals run as their view has them.
        view: how it was taken, if the file says it; of an oriented image by the radiographer's name.
        distances: of the source from axis and detector (SAD, SDD) in mm, if the file says them.
    """

    image: np.ndarray
    pixel_mm: float | None
    note: str
    oriented: bool = False
    view: View | None = None
    distances: tuple[float, float] | None = None


def square(image: np.ndarray) -> np.ndarray:
    """The image in the middle of a square of its longer edge, on its own lowest value."""
    rows, columns = image.shape
    edge = max(rows, columns)
    margins = [((edge - n) // 2, edge - n - (edge - n) // 2) for n in (rows, columns)]
    return np.ascontiguousarray(np.pad(image, margins, constant_values=image.min()))
