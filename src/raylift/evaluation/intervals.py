"""Confidence intervals of means over a few cases, and differences of two methods on the same cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95  # confidence level of the intervals in tables
FEWEST = 8  # cases that a bootstrap needs; of three, for one, it gives [min, max], which is too narrow
EXPLAINED = f"{LEVEL:.0%} interval of the mean over the cases (Student's t below {FEWEST} cases, else bootstrap)"


@dataclass(frozen=True)
class Difference:
    """The difference of two methods on the same cases, case by case.

    Args:
        mean: over the cases.
        interval: confidence interval of that mean; None for a single case.
        cases: number of cases that both methods have.
    """

    mean: float
    interval: tuple[float, float] | None
    cases: int


def mean_interval(values: Sequence[float] | np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Return a confidence interval of a mean: Student's t below `FEWEST` values, or else `bootstrap_interval`.

    Args:
        values: one number per case, at least one.
        level: confidence level, in (0, 1).

    Returns:
        The lower and the upper end, in units of the values; for a single value, the value twice.
    """
    array = np.asarray(values, dtype=np.float64)
    if not 1 < array.size < FEWEST:
        return bootstrap_interval(array, level)
    _check(array, level)
    half_width = stats.t.ppf((1 + level) / 2, array.size - 1) * array.std(ddof=1) / np.sqrt(array.size)
    return float(array.mean() - half_width), float(array.mean() + half_width)


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, level: float = LEVEL, seed: int = 0, resamples: int = 2000
) -> tuple[float, float]:
    """Return a percentile bootstrap interval of a mean (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993).

    Args:
        values: one number per case, at least one.
        level: share of resampled means inside the interval, in (0, 1).
        seed: of the resampling; the same values and seed give the same interval.
        resamples: number of samples drawn from the cases, with replacement.

    Returns:
        The lower and the upper end, in units of the values; for a single value, the value twice.
    """
    array = np.asarray(values, dtype=np.float64)
    _check(array, level)
    if array.size == 1:
        return float(array[0]), float(array[0])
    interval = stats.bootstrap(
        (array,),
        np.mean,
        n_resamples=resamples,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def paired_difference(one: Mapping[str, float], other: Mapping[str, float]) -> Difference | None:
    """Compare two methods on the cases that both have; this tells more than the intervals of their two means.

    Args:
        one: the first method's values by case.
        other: the second method's values by case, which are subtracted.

    Returns:
        The difference; None where the methods share no case.
    """
    values = [value - other[case] for case, value in one.items() if case in other]
    if not values:
        return None
    return Difference(float(np.mean(values)), mean_interval(values) if len(values) > 1 else None, len(values))


def _check(array: np.ndarray, level: float) -> None:
    """Check the arguments of an interval.

    Raises:
        ValueError: there are no values, or the level is out of range.
    """
    if array.ndim != 1 or len(array) == 0:
        raise ValueError("an interval needs a list of at least one value")
    if not 0 < level < 1:
        raise ValueError(f"a level is between 0 and 1, not {level}")
