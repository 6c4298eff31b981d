"""Checks of X-ray images: size, pixel spacing and values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from raylift.errors import BadInput

# Bounds on what is decoded: the largest chest detectors have 20 megapixels; padding squares the longer edge.
MAX_PIXELS = 100_000_000
MIN_EDGE = 32
MAX_ASPECT = 3
# A line integral through a chest is below 10, through a metal implant below 40; grey levels reach 255.
MAX_LINE_INTEGRAL = 100.0


def check_size(path: Path, rows: int, columns: int) -> None:
    """Check that an image has the size and the shape of a radiograph.

    Raises:
        BadInput: it is too small, too large or too narrow.
    """
    if min(rows, columns) < MIN_EDGE:
        raise BadInput(path, f"only {rows} × {columns} pixels", f"give at least {MIN_EDGE} along each edge")
    if rows * columns > MAX_PIXELS:
        raise BadInput(path, f"more than {MAX_PIXELS / 1e6:.0f} megapixels", "scale it down")
    if max(rows, columns) > MAX_ASPECT * min(rows, columns):
        raise BadInput(path, f"{rows} × {columns} pixels is no radiograph's shape", "crop it to the chest")


def square_pixel(path: Path, spacing: Sequence[float] | np.ndarray, unit: str = " mm") -> float | None:
    """Return the edge of a square pixel, given its height and width in a unit; None where these are no lengths.

    Raises:
        BadInput: the pixels are not square.
    """
    if len(spacing) != 2 or not min(spacing) > 0:
        return None
    if abs(spacing[0] - spacing[1]) > 0.01 * spacing[0]:
        raise BadInput(path, f"pixels of {spacing[0]:g} × {spacing[1]:g}{unit}", "resample it to square pixels")
    return float(spacing[0])


def check_line_integrals(path: Path, image: np.ndarray) -> None:
    """Check that the values of an image (rows, columns) can be line integrals.

    Raises:
        BadInput: a value is NaN, infinite or out of range, or all values are equal.
    """
    if not np.isfinite(image).all():
        count = int((~np.isfinite(image)).sum())
        raise BadInput(path, f"{count} pixels are NaN or infinite", "export it again")
    low, high = float(image.min()), float(image.max())
    # Interpolation undershoots a little; more than that is another quantity.
    if low < -0.05 or high > MAX_LINE_INTEGRAL:
        problem = f"values from {low:.4g} to {high:.4g}, but line integrals lie between 0 and about 10"
        raise BadInput(path, problem, "save grey levels as a 16-bit PNG")
    if low == high:
        raise BadInput(path, f"every pixel is {low:g}", "give an image that shows something")


def describe_damage(error: Exception) -> tuple[str, str]:
    """Return the problem and the remedy to report for a file that a decoder cannot read."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return f"cannot be read ({reason})", "damaged or not what its name says; copy it again"
