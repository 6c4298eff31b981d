"""A tone curve: the monotone function from the grey levels of a picture to line integrals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ToneCurve:
    """The line integrals that the grey levels of a picture stand for; linear between knots, constant beyond them.

    Args:
        levels: grey levels of the knots, strictly increasing, (K,).
        integrals: line integrals ∫μ dl at the knots, not decreasing, (K,).
        deviation: standard deviation of the error of each, (K,); None where it is unknown.
    """

    levels: np.ndarray
    integrals: np.ndarray
    deviation: np.ndarray | None = None

    @classmethod
    def through(cls, levels: np.ndarray, integrals: np.ndarray, deviation: np.ndarray | None = None) -> ToneCurve:
        """Return the curve through knots, the first of those of equal levels, raised where they decrease.

        Args:
            levels: grey levels, not decreasing, (K,).
            integrals: see above.
            deviation: see above.
        """
        distinct, first = np.unique(levels, return_index=True)
        rising = np.maximum.accumulate(integrals[first])
        return cls(distinct, rising, None if deviation is None else deviation[first])

    def __call__(self, levels: np.ndarray) -> np.ndarray:
        """Return the line integrals of grey levels of any shape, float32."""
        integrals: np.ndarray = np.interp(levels, self.levels, self.integrals).astype(np.float32)
        return integrals

    def followed_by(self, before: np.ndarray, after: np.ndarray) -> ToneCurve:
        """Return this curve with its line integrals changed as those of an image were: from `before` to `after`."""
        known, first = np.unique(before[before > 0], return_index=True)
        factor = np.interp(self.integrals, known, after[before > 0][first] / known) if len(known) else 1.0
        deviation = None if self.deviation is None else self.deviation * factor
        return ToneCurve(self.levels, self.integrals * factor, deviation)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description."""
        described = {"levels": self.levels.tolist(), "line_integrals": self.integrals.tolist()}
        return described if self.deviation is None else {**described, "deviation": self.deviation.tolist()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ToneCurve:
        """Return the curve that `to_dict` described. Raises KeyError where an entry is missing."""
        levels, integrals = (np.asarray(data[key], float) for key in ("levels", "line_integrals"))
        return cls(levels, integrals, np.asarray(data["deviation"], float) if "deviation" in data else None)
