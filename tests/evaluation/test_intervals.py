"""Intervals of means that are known, and how often they hold them."""

import math

import numpy as np
import pytest

from raylift.evaluation.intervals import FEWEST, bootstrap_interval, mean_interval, paired_difference


def test_bootstrap_interval_holds_the_mean_and_is_repeatable():
    values = np.random.default_rng(1).normal(3, 1, 30)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    assert (low, high) == bootstrap_interval(values)
    # 30 normal values: close to mean ± 1.96 standard errors.
    assert high - low == pytest.approx(2 * 1.96 * values.std(ddof=1) / math.sqrt(30), rel=0.1)


def test_bootstrap_interval_shrinks_with_more_cases_and_lower_level():
    values = np.random.default_rng(2).normal(size=400)
    widths = [np.ptp(bootstrap_interval(values[:n])) for n in (25, 100, 400)]
    assert widths == sorted(widths, reverse=True)
    assert np.ptp(bootstrap_interval(values, level=0.5)) < widths[-1]


@pytest.mark.parametrize("interval", [bootstrap_interval, mean_interval])
def test_interval_of_one_value_and_of_none(interval):
    assert interval([0.5]) == (0.5, 0.5)
    with pytest.raises(ValueError, match="at least one"):
        interval([])
    with pytest.raises(ValueError, match="between 0 and 1"):
        interval([1.0, 2.0], level=95)


def test_few_values_have_students_interval():
    # t of 0.975 with two degrees of freedom is 4.303; 1, 2, 3 have the standard error 1/√3.
    low, high = mean_interval([1, 2, 3])
    assert (low, high) == pytest.approx((2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), abs=1e-3)
    many = np.arange(FEWEST)
    assert mean_interval(many) == bootstrap_interval(many)


def test_an_interval_of_three_holds_the_mean_as_often_as_it_says():
    """A bootstrap of three values is [min, max], which holds the mean three times out of four."""
    drawn = np.random.default_rng(3).normal(size=(2000, 3))
    held = [low <= 0 <= high for low, high in map(mean_interval, drawn)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


def test_paired_difference_is_of_the_cases_that_both_have():
    one, other = {"a": 20.0, "b": 10.5, "c": 31.0, "d": 7.0}, {"a": 19.0, "b": 9.0, "c": 30.5, "e": 99.0}
    difference = paired_difference(one, other)
    assert difference is not None
    assert (difference.mean, difference.cases) == (1.0, 3)
    assert difference.interval == mean_interval([1.0, 1.5, 0.5])
    alone = paired_difference({"a": 2.0}, {"a": 1.0})
    assert alone is not None
    assert (alone.mean, alone.interval) == (1.0, None)
    assert paired_difference({"a": 1.0}, {"b": 1.0}) is None
