import numpy as np
import pytest
from skimage.metrics import structural_similarity

from raylift.evaluation import metrics


def test_errors_of_a_hand_computed_pair():
    truth = np.zeros((7, 7, 8))
    prediction = truth.copy()
    prediction[0, 0, :2] = 0.3, -0.5
    assert metrics.mse(truth, prediction) == pytest.approx((0.09 + 0.25) / 392)
    assert metrics.mae(truth, prediction) == pytest.approx(0.8 / 392)


def test_errors_of_small_integers_do_not_overflow():
    assert metrics.mae(np.uint8([[0]]), np.uint8([[200]])) == 200


@pytest.mark.parametrize(("data_range", "decibels"), [(1, 20.0), (10, 40.0)])
def test_psnr_of_a_constant_offset(data_range, decibels):
    truth = np.full((4, 5, 6), 0.3)
    assert metrics.psnr(truth, truth + 0.1, data_range) == pytest.approx(decibels)


def test_psnr_of_identical_arrays_is_the_ceiling():
    truth = np.ones((4, 4))
    assert metrics.psnr(truth, truth) == 120
    assert metrics.psnr(truth, truth, ceiling=100) == 100
    assert metrics.psnr(truth, truth + 1e-9) == 120


def test_ssim_of_constants_is_the_luminance_term():
    # (2ab + C1) / (a² + b² + C1) with C1 = 0.01²; the contrast term of constants is C2 / C2.
    a, b, c1 = 0.4, 0.6, 0.01**2
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    assert metrics.ssim(np.full((8, 9, 10), a), np.full((8, 9, 10), b)) == pytest.approx(expected)


def test_each_axis_counts_a_third_in_ssim(smooth_pair):
    truth, prediction = smooth_pair
    along = [
        np.mean(
            [
                structural_similarity(truth.take(i, axis), prediction.take(i, axis), data_range=1.0)
                for i in range(truth.shape[axis])
            ]
        )
        for axis in range(3)
    ]
    assert metrics.ssim(truth, prediction) == pytest.approx(sum(along) / 3)
    assert metrics.ssim(truth, truth) == pytest.approx(1)


def test_mean_over_slices_weighs_axes_not_slices():
    volume = np.zeros((2, 4, 8))
    volume[0] = 1
    # The slices' mean is 1/2 along every axis; their maximum is 1 and 0 along z, but always 1 along y and x.
    assert metrics.mean_over_slices(lambda a, _: a.mean(), volume, volume) == pytest.approx(0.5)
    assert metrics.mean_over_slices(lambda a, _: a.max(), volume, volume) == pytest.approx((0.5 + 1 + 1) / 3)
