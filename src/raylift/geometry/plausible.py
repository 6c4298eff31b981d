"""What is plausible of a geometry that a file describes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Point = tuple[float, float, float]

FARTHEST = 1e5  # mm, or degrees


def plain_list(value: Any, length: int) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)) or len(value) != length:
        raise ValueError(f"{str(value)[:60]} is no list of {length}")
    return value


def plain_number(value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{str(value)[:60]!r} is no number from {low:g} to {high:g}")
    return float(value)


def plain_integer(value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{str(value)[:60]!r} is no whole number from {low} to {high}")
    return value


def plain_boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{str(value)[:60]!r} is neither true nor false")
    return value
