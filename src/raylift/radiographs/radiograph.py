"""One X-ray image as line integrals, with its pixel spacing and its view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raylift.geometry import View
from raylift.images.tone_curve import ToneCurve
from raylift.radiographs.placement import Placement


@dataclass(frozen=True)
class Radiograph:
    """An X-ray image.

    Args:
        image: line integrals ∫μ dl without unit, float32 ≥ 0, square (rows, columns). Row 0 is superior.
        pixel_mm: distance of pixel centres on the detector in mm; None where the file has none.
        note: one sentence on where the values come from, and how far to trust them.
        oriented: the image was made from grey levels and is oriented for reading: columns run to the patient's left in
            a frontal image, to the back in a lateral one. Columns of other images run as their view declares.
        view: how it was taken; None where the file does not declare it. The view of an oriented image is the one with
            the radiographer's name.
        distances: from the source to the axis and to the detector (SAD, SDD) in mm; None where the file has none, and
            None in place of the SAD where it has only the SDD.
        at_axis: `pixel_mm` is the distance in the patient, at the axis, which the detector shows magnified.
        placement: where the image lies on the detector; None where the file does not declare it.
        tone: the curve by which grey levels were converted; None where the file held no grey levels.
    """

    image: np.ndarray
    pixel_mm: float | None
    note: str
    oriented: bool = False
    view: View | None = None
    distances: tuple[float | None, float] | None = None
    at_axis: bool = False
    placement: Placement | None = None
    tone: ToneCurve | None = None


@dataclass(frozen=True)
class ImageSize:
    """The size of an X-ray image on its detector, as a user gives it: either of the two.

    Args:
        pixel_mm: edge of a pixel in mm.
        edge_mm: longer edge of the image in mm.
    """

    pixel_mm: float | None = None
    edge_mm: float | None = None

    def pixel(self, pixels: int) -> float:
        """Return the edge of a pixel in mm, given the number of pixels along the longer edge."""
        if self.pixel_mm is not None:
            return self.pixel_mm
        assert self.edge_mm is not None
        return self.edge_mm / pixels


def square(image: np.ndarray) -> np.ndarray:
    """Return an image (rows, columns) padded evenly to a square (edge, edge); its outermost values go on."""
    rows, columns = image.shape
    edge = max(rows, columns)
    margins = [((edge - n) // 2, edge - n - (edge - n) // 2) for n in (rows, columns)]
    return np.ascontiguousarray(np.pad(image, margins, mode="edge"))
