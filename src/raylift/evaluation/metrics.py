"""Metrics of the similarity of two volumes, as functions of arrays (z, y, x) in [0, 1].

A difference of 1 is 2000 HU (see `raylift.images.hounsfield.WINDOW`). The functions, ranges and averages
behind a published number are defined by `raylift.evaluation.protocols`; numbers of different protocols are not
comparable.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from skimage.metrics import structural_similarity

SSIM_WINDOW = 7  # voxels; also the smallest volume edge that has a slice SSIM


def mse(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the mean squared error of two arrays of one shape, in squared units of the arrays."""
    return float(np.square(_float64(truth) - _float64(prediction)).mean())


def mae(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the mean absolute error of two arrays of one shape, in units of the arrays."""
    return float(np.abs(_float64(truth) - _float64(prediction)).mean())


def psnr(truth: np.ndarray, prediction: np.ndarray, data_range: float = 1.0, ceiling: float = 120.0) -> float:
    """Return the peak signal-to-noise ratio in dB, 10·log10(data_range² / MSE).

    Args:
        truth: any shape.
        prediction: the same shape.
        data_range: the peak, in units of the arrays.
        ceiling: largest value that is returned, also for identical arrays, whose ratio is infinite.
    """
    error = mse(truth, prediction)
    return ceiling if error == 0 else min(ceiling, 10 * math.log10(data_range**2 / error))


def ssim(truth: np.ndarray, prediction: np.ndarray, data_range: float = 1.0) -> float:
    """Return the structural similarity of the slices, averaged over the slices along z, y and x.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 2004,
    with a uniform 7×7 window, K1 = 0.01, K2 = 0.03 and sample covariances: scikit-image's defaults.

    Args:
        truth: volume (z, y, x), at least 7 voxels along each axis.
        prediction: the same shape.
        data_range: the range of possible values.

    Returns:
        A number in [-1, 1], 1 for identical volumes.
    """

    def of_slice(a: np.ndarray, b: np.ndarray) -> float:
        """Return the structural similarity of two slices."""
        return float(structural_similarity(a, b, win_size=SSIM_WINDOW, data_range=data_range))

    return mean_over_slices(of_slice, truth, prediction)


def mean_over_slices(
    metric: Callable[[np.ndarray, np.ndarray], float], truth: np.ndarray, prediction: np.ndarray
) -> float:
    """Return the mean over the axes z, y, x of a 2D metric's mean over the slices along that axis.

    Args:
        metric: function of two slices, the true and the predicted one.
        truth: volume (z, y, x).
        prediction: the same shape.
    """
    truth, prediction = _float64(truth), _float64(prediction)
    along = [
        np.mean(
            [metric(a, b) for a, b in zip(np.moveaxis(truth, axis, 0), np.moveaxis(prediction, axis, 0), strict=True)]
        )
        for axis in range(3)
    ]
    return float(np.mean(along))


def _float64(array: np.ndarray) -> np.ndarray:
    """Return an array as float64."""
    return np.asarray(array, dtype=np.float64)
