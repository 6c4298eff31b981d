"""Checks of the values in a file that describes a geometry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Point = tuple[float, float, float]

FARTHEST = 1e5  # mm, or degrees


def plain_list(value: Any, length: int) -> Sequence[Any]:
    """Return the value if it is a list or tuple of this length.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, (list, tuple)) or len(value) != length:
        raise ValueError(f"{str(value)[:60]} is not a list of {length}")
    return value


def plain_number(value: Any, low: float, high: float) -> float:
    """Return the value as a float if it is a number from `low` to `high`.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{str(value)[:60]!r} is not a number from {low:g} to {high:g}")
    return float(value)


def plain_integer(value: Any, low: int, high: int) -> int:
    """Return the value if it is a whole number from `low` to `high`.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{str(value)[:60]!r} is not a whole number from {low} to {high}")
    return value


def plain_boolean(value: Any) -> bool:
    """Return the value if it is true or false.

    Raises:
        ValueError: it is neither.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{str(value)[:60]!r} is neither true nor false")
    return value
