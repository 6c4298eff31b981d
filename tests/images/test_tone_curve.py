"""Tone curves as functions."""

import json

import numpy as np
import pytest

from raylift.images.tone_curve import ToneCurve


def test_it_is_linear_between_knots_and_constant_beyond() -> None:
    curve = ToneCurve(np.array([10.0, 20, 40]), np.array([0.0, 1, 2]))
    np.testing.assert_allclose(curve(np.array([0, 10, 15, 30, 40, 99])), [0, 0, 0.5, 1.5, 2, 2])


def test_knots_of_equal_levels_count_once_and_none_falls() -> None:
    curve = ToneCurve.through(np.array([0.0, 0, 1, 2]), np.array([0.0, 1, 3, 2.9]), np.array([0.1, 0.2, 0.3, 0.4]))
    np.testing.assert_array_equal(curve.levels, [0, 1, 2])
    np.testing.assert_array_equal(curve.integrals, [0, 3, 3])
    np.testing.assert_array_equal(curve.deviation, [0.1, 0.3, 0.4])


def test_it_follows_a_change_of_its_image() -> None:
    curve = ToneCurve(np.array([0.0, 1, 2]), np.array([0.0, 1, 4]), np.array([0.1, 0.1, 0.4]))
    before = np.array([[0.0, 1], [2, 3]])
    changed = curve.followed_by(before, np.array([[0.0, 1.5], [3, 6]]))
    np.testing.assert_allclose(changed.integrals, [0, 1.5, 8])  # beyond the image its outermost factor goes on
    assert changed.deviation == pytest.approx([0.15, 0.15, 0.8])


@pytest.mark.parametrize("deviation", [None, np.array([0.1, 0.2])])
def test_it_survives_json(deviation: np.ndarray | None) -> None:
    curve = ToneCurve(np.array([0.0, 1]), np.array([0.0, 2]), deviation)
    read = ToneCurve.from_dict(json.loads(json.dumps(curve.to_dict())))
    np.testing.assert_array_equal(read.integrals, curve.integrals)
    assert (read.deviation is None) == (deviation is None)
