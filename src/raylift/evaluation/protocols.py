"""Named ways of scoring a volume, so that no table mixes numbers that are computed differently.

The same constant offset of 0.1 is 20.00 dB by `hu`, 26.22 dB by `paper` and 24.29 dB by `x2ct`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from raylift.errors import known
from raylift.evaluation import metrics
from raylift.images.hounsfield import WINDOW

CT_PEAK = 4095.0  # the largest 12-bit value, which published chest reconstructions take for the peak of PSNR


@dataclass(frozen=True)
class Protocol:
    """A named set of metrics.

    Args:
        name: how users ask for it.
        description: one line, to be printed with every table of its numbers.
        compute: function of the true and the predicted volume, float64 (z, y, x) in [0, 1], giving the
            metrics by name in the order of a table's columns.
    """

    name: str
    description: str
    compute: Callable[[np.ndarray, np.ndarray], dict[str, float]]


def _hu(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    mae = metrics.mae(truth, prediction)
    return {
        "ssim": metrics.ssim(truth, prediction),
        "psnr": metrics.psnr(truth, prediction),
        "mse": metrics.mse(truth, prediction),
        "mae": mae,
        "mae_hu": mae * (WINDOW[1] - WINDOW[0]),
    }


def _paper(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    # The paper names neither window nor dimension of its SSIM, so ours stands in for it.
    return {
        "ssim": metrics.ssim(truth, prediction),
        "psnr": metrics.psnr(2000 * truth, 2000 * prediction, CT_PEAK),
        "mse": metrics.mse(truth, prediction),
        "mae": metrics.mae(truth, prediction),
    }


def _paper_minmax(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    low, span = truth.min(), np.ptp(truth) or 1.0
    truth, prediction = ((volume - low) / span for volume in (truth, prediction))
    return _paper(truth, np.clip(prediction, 0, 1))


def _x2ct(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    slice_psnr = partial(metrics.psnr, data_range=CT_PEAK, ceiling=100.0)
    return {
        "ssim": metrics.ssim(2500 * truth, 2500 * prediction, CT_PEAK),
        "psnr": metrics.mean_over_slices(slice_psnr, 2500 * truth, 2500 * prediction),
        "mse": metrics.mse(truth, prediction),
        "mae": metrics.mae(truth, prediction),
    }


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "hu",
            "[-1000, 1000] HU scaled to [0, 1]; SSIM = mean slice SSIM over three axes (7×7, range 1); "
            "PSNR = 10·log10(1/MSE) over the volume; MAE also in HU",
            _hu,
        ),
        Protocol(
            "paper",
            "Repeat and Concatenate (2024): SSIM, MSE, MAE on [0, 1]; PSNR on [0, 2000] against peak 4095, "
            "6.22 dB above `hu`; the paper gives no SSIM window, here as in `hu`",
            _paper,
        ),
        Protocol(
            "paper-minmax",
            "as `paper`, but both volumes scaled by the true volume's own minimum and maximum first, as the published "
            "program does; 0.4 to 5.7 dB above `paper` for the same volume",
            _paper_minmax,
        ),
        Protocol(
            "x2ct",
            "X2CT-GAN (2019): values scaled to [0, 2500], peak 4095; SSIM and PSNR per slice, averaged over "
            "three axes, an identical slice counting as 100 dB; MSE, MAE on [0, 1]",
            _x2ct,
        ),
    )
}


def find_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        WrongUsage: there is none; the message gives the nearest name.
    """
    return PROTOCOLS[known(name, PROTOCOLS, "protocol")]


def score(prediction_unit: np.ndarray, truth_unit: np.ndarray, protocol: str = "hu") -> dict[str, float]:
    """The metrics of a predicted volume by a named protocol.

    Args:
        prediction_unit: volume (z, y, x) in the network's window, [0, 1] = [-1000, 1000] HU; clipped to it.
        truth_unit: the true volume on the same grid, likewise.
        protocol: a name in `PROTOCOLS`.

    Returns:
        Metrics by name: "ssim", "psnr" (dB), "mse", "mae" of [0, 1], and for `hu` "mae_hu" (HU).

    Raises:
        WrongUsage: the protocol is unknown.
        ValueError: the volumes differ in shape, are not 3D with at least 7 voxels per axis, or hold NaN.

    Example:
        >>> truth = np.full((8, 8, 8), 0.5)
        >>> round(score(truth + 0.1, truth, "hu")["psnr"], 2)
        20.0
    """
    compute = find_protocol(protocol).compute
    prediction, truth = (np.asarray(array, dtype=np.float64) for array in (prediction_unit, truth_unit))
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape} differ in shape")
    if truth.ndim != 3 or min(truth.shape) < metrics.SSIM_WINDOW:
        raise ValueError(f"a volume (z, y, x) of at least {metrics.SSIM_WINDOW} voxels per axis, not {truth.shape}")
    for name, array in (("prediction", prediction), ("truth", truth)):
        if not np.isfinite(array).all():
            raise ValueError(f"the {name} holds NaN or infinite values")
    return compute(np.clip(truth, 0, 1), np.clip(prediction, 0, 1))
