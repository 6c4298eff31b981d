"""Scoring protocols: named sets of metrics, so that no table mixes numbers that are computed differently.

The same constant offset of 0.1 is 20.00 dB by `hu`, 26.22 dB by `paper` and 24.29 dB by `x2ct`. This module imports no
numerical packages, so that commands know the names at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from raylift.errors import known


@dataclass(frozen=True)
class Protocol:
    """A named set of metrics.

    Args:
        name: by which users select it.
        description: one line, printed with every table of its numbers.
        path: module:function that takes the true and the predicted volume, float64 (z, y, x) in [0, 1], and returns
            the metrics by name, in the order of a table's columns.
    """

    name: str
    description: str
    path: str


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "hu",
            "[-1000, 1000] HU scaled to [0, 1]; SSIM = mean slice SSIM over three axes (7×7, range 1); "
            "PSNR = 10·log10(1/MSE) over the volume; MAE also in HU",
            "raylift.evaluation.scores:score_hu",
        ),
        Protocol(
            "paper",
            "Repeat and Concatenate (2024): SSIM, MSE, MAE on [0, 1]; PSNR on [0, 2000] against peak 4095, "
            "6.22 dB above `hu`; the paper gives no SSIM window, here as in `hu`",
            "raylift.evaluation.scores:score_paper",
        ),
        Protocol(
            "paper-minmax",
            "as `paper`, but both volumes scaled by the true volume's own minimum and maximum first, as the published "
            "program does; 0.4 to 5.7 dB above `paper` for the same volume",
            "raylift.evaluation.scores:score_paper_minmax",
        ),
        Protocol(
            "x2ct",
            "X2CT-GAN (2019): values scaled to [0, 2500], peak 4095; SSIM and PSNR per slice, averaged over "
            "three axes, an identical slice counting as 100 dB; MSE, MAE on [0, 1]",
            "raylift.evaluation.scores:score_x2ct",
        ),
    )
}


def find_protocol(name: str) -> Protocol:
    """Return the protocol of a name.

    Raises WrongUsage, through `known`, where there is none; the message gives the nearest name.
    """
    return PROTOCOLS[known(name, PROTOCOLS, "protocol")]
