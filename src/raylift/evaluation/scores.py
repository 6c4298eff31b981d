"""The functions that compute the protocols' metrics."""

from __future__ import annotations

from functools import partial

import numpy as np

from raylift.evaluation import metrics
from raylift.evaluation.protocols import find_protocol
from raylift.images.hounsfield import WINDOW
from raylift.plugins import load

CT_PEAK = 4095.0  # largest 12-bit value, the peak of PSNR in published chest reconstructions


def score_hu(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """Return the metrics of protocol `hu` for volumes (z, y, x) in [0, 1]."""
    mae = metrics.mae(truth, prediction)
    return {
        "ssim": metrics.ssim(truth, prediction),
        "psnr": metrics.psnr(truth, prediction),
        "mse": metrics.mse(truth, prediction),
        "mae": mae,
        "mae_hu": mae * (WINDOW[1] - WINDOW[0]),
    }


def score_paper(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """Return the metrics of protocol `paper` for volumes (z, y, x) in [0, 1]."""
    # The paper names neither window nor dimension of its SSIM, so that of `hu` is used.
    return {
        "ssim": metrics.ssim(truth, prediction),
        "psnr": metrics.psnr(2000 * truth, 2000 * prediction, CT_PEAK),
        "mse": metrics.mse(truth, prediction),
        "mae": metrics.mae(truth, prediction),
    }


def score_paper_minmax(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """Return the metrics of protocol `paper-minmax` for volumes (z, y, x) in [0, 1]."""
    low, span = truth.min(), np.ptp(truth) or 1.0
    truth, prediction = ((volume - low) / span for volume in (truth, prediction))
    return score_paper(truth, np.clip(prediction, 0, 1))


def score_x2ct(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """Return the metrics of protocol `x2ct` for volumes (z, y, x) in [0, 1]."""
    slice_psnr = partial(metrics.psnr, data_range=CT_PEAK, ceiling=100.0)
    return {
        "ssim": metrics.ssim(2500 * truth, 2500 * prediction, CT_PEAK),
        "psnr": metrics.mean_over_slices(slice_psnr, 2500 * truth, 2500 * prediction),
        "mse": metrics.mse(truth, prediction),
        "mae": metrics.mae(truth, prediction),
    }


def score(prediction: np.ndarray, truth: np.ndarray, protocol: str = "hu") -> dict[str, float]:
    """Return the metrics of a predicted volume by a named protocol.

    Raises WrongUsage, through `find_protocol`, where the protocol is unknown.

    Args:
        prediction: volume (z, y, x) in the network's window, [0, 1] for [-1000, 1000] HU; clipped to it.
        truth: true volume on the same grid, likewise.
        protocol: a name in `PROTOCOLS`.

    Returns:
        Metrics by name: "ssim", "psnr" (dB), "mse", "mae" of [0, 1], and for `hu` "mae_hu" (HU).

    Raises:
        ValueError: the volumes differ in shape, are not 3D with at least 7 voxels per axis, or hold NaN.

    Example:
        >>> truth = np.full((8, 8, 8), 0.5)
        >>> round(score(truth + 0.1, truth, "hu")["psnr"], 2)
        20.0
    """
    compute = load(find_protocol(protocol).path)
    prediction, truth = (np.asarray(array, dtype=np.float64) for array in (prediction, truth))
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape} differ in shape")
    if truth.ndim != 3 or min(truth.shape) < metrics.SSIM_WINDOW:
        raise ValueError(f"a volume (z, y, x) of at least {metrics.SSIM_WINDOW} voxels per axis, not {truth.shape}")
    for name, array in (("prediction", prediction), ("truth", truth)):
        if not np.isfinite(array).all():
            raise ValueError(f"the {name} holds NaN or infinite values")
    scores: dict[str, float] = compute(np.clip(truth, 0, 1), np.clip(prediction, 0, 1))
    return scores
