"""Calibration of tone curves: by the sums of rows, by a volume's projections, and never of X-rays that are known."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from raylift.data.phantom import thorax_phantom
from raylift.data.thorax import find_thorax
from raylift.drr.projector import project_volume
from raylift.geometry import Geometry, View
from raylift.images.tone_curve import ToneCurve
from raylift.images.xray_set import XraySet
from raylift.reconstruction.tone import AIR_BELOW, ToneCalibration, disagreement

VIEWS = (View.parse("pa"), View.parse("lateral-left"))
STAND = Geometry.preset("chest-stand", 96)
Wrong = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def true() -> XraySet:
    phantom = thorax_phantom(2, 5.0)
    return XraySet(project_volume(phantom, STAND, VIEWS, find_thorax(phantom).centre), VIEWS, STAND)


def shown(true: XraySet, *wrong: Wrong | None) -> XraySet:
    """The X-rays with pictures whose curves are wrong by these functions; those of None are known."""
    images = [image if change is None else change(image) for image, change in zip(true.images, wrong, strict=True)]
    line = ToneCurve(np.linspace(0, 10, 21), np.linspace(0, 10, 21), np.full(21, 0.5))
    return replace(true, images=np.stack(images), tones=tuple(change and line for change in wrong))


def off(xrays: XraySet, true: XraySet) -> np.ndarray:
    """Mean absolute errors (N,) as shares of the means."""
    errors: np.ndarray = np.abs(xrays.images - true.images).mean((1, 2)) / true.images.mean((1, 2))
    return errors


@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_the_sums_of_rows_bring_a_picture_to_a_known_view(true: XraySet, factor: float) -> None:
    wrong = shown(true, None, lambda x: factor * x)
    found = ToneCalibration(wrong).solve()
    assert off(found, true)[1] < 0.35 * off(wrong, true)[1]
    np.testing.assert_array_equal(found.images[0], true.images[0])


def test_two_pictures_meet_in_between(true: XraySet) -> None:
    found = ToneCalibration(shown(true, lambda x: 0.8 * x, lambda x: 1.2 * x)).solve()
    sums = found.images.sum((1, 2))
    assert sums[1] / sums[0] == pytest.approx(1, abs=0.06)
    assert sums.mean() == pytest.approx(true.images.sum((1, 2)).mean(), rel=0.1)


def test_projections_bring_a_picture_to_the_volume(true: XraySet) -> None:
    wrong = shown(true, lambda x: 0.75 * x, lambda x: 0.8 * x ** 1.1)  # fmt: skip
    everywhere = np.ones(true.images.shape, bool)
    # A volume that was computed from these X-rays follows them by a half.
    found = ToneCalibration(wrong).solve((wrong.images + true.images) / 2, everywhere)
    assert (off(found, true) < 0.5 * off(wrong, true)).all()
    assert disagreement(found, true.images, everywhere) < disagreement(wrong, true.images, everywhere)


def test_the_order_of_pixels_is_kept_and_air_stays_air(true: XraySet) -> None:
    wrong = shown(true, lambda x: 0.6 * x**1.3, lambda x: 1.3 * x**0.8)
    found = ToneCalibration(wrong).solve(true.images, np.ones(true.images.shape, bool))
    for before, after in zip(wrong.images, found.images, strict=True):
        order = np.argsort(before, axis=None, kind="stable")
        assert (np.diff(after.ravel()[order]) >= 0).all()
        np.testing.assert_allclose(after[before <= AIR_BELOW], before[before <= AIR_BELOW], atol=1e-6)


def test_the_curve_changes_with_its_image(true: XraySet) -> None:
    found = ToneCalibration(shown(true, None, lambda x: 0.7 * x)).solve()
    curve = found.tones[1]
    assert found.tones[0] is None
    assert curve is not None
    np.testing.assert_allclose(curve(0.7 * true.images[1]), found.images[1], atol=0.15)
    assert curve.deviation is not None
    assert curve.deviation[10] > 0.5


def test_one_picture_alone_is_left_to_its_recognised_curve(true: XraySet) -> None:
    alone = XraySet(true.images[:1], VIEWS[:1], STAND, tones=(ToneCurve(np.array([0.0, 1]), np.array([0.0, 1])),))
    np.testing.assert_allclose(ToneCalibration(alone).solve().images, alone.images, rtol=1e-6)
