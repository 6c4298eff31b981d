"""The place of an image on its detector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Placement:
    """Where an image lies on its detector: distances in mm from the detector's edges to the middle of the image.

    Of two opposite edges one is enough where the size of the detector is known from elsewhere.

    Args:
        top: from the upper edge; None where it is unknown, like the others.
        bottom: from the lower edge.
        left: from the left edge.
        right: from the right edge.
    """

    top: float | None
    bottom: float | None
    left: float | None
    right: float | None

    def turned(self, quarter_turns: int, mirrored: bool) -> Placement:
        """Return the placement after detector and image are turned together.

        Args:
            quarter_turns: number of quarter turns, counter-clockwise.
            mirrored: left and right are swapped after the quarter turns.
        """
        edges = [self.top, self.left, self.bottom, self.right]  # counter-clockwise
        first = -quarter_turns % 4
        top, left, bottom, right = edges[first:] + edges[:first]
        return Placement(top, bottom, right, left) if mirrored else Placement(top, bottom, left, right)

    def offset(self, detector_mm: float) -> tuple[float, float]:
        """Return how far down and to the right the image's middle is of the middle of a square detector, in mm.

        Args:
            detector_mm: edge of the detector, which is used where only one of two opposite edges is known.
        """
        return _offset(self.top, self.bottom, detector_mm), _offset(self.left, self.right, detector_mm)


def _offset(start: float | None, end: float | None, detector_mm: float) -> float:
    """Return the offset from the middle, given the distances from the first and the last edge."""
    if start is not None and end is not None:
        return (start - end) / 2
    if start is not None:
        return start - detector_mm / 2
    return 0.0 if end is None else detector_mm / 2 - end


def place(image: np.ndarray, edge: int, down: int = 0, right: int = 0) -> np.ndarray:
    """Return a square image on a detector of `edge` × `edge` pixels; beside it its outermost values go on.

    Args:
        image: the image.
        edge: the detector's edge in pixels.
        down: pixels by which the image's middle lies below that of the detector.
        right: pixels by which it lies to the right.
    """
    start = [(edge - image.shape[0]) // 2 + offset for offset in (down, right)]
    rows, columns = (np.clip(np.arange(edge) - first, 0, image.shape[0] - 1) for first in start)
    placed: np.ndarray = image[np.ix_(rows, columns)]
    return placed
