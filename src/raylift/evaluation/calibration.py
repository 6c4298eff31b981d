"""Calibration of a volume's uncertainty: the errors of its voxels against their predicted standard deviations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import norm

from raylift.data.dataset import PreparedDataset
from raylift.errors import BadInput
from raylift.evaluation.methods import check_cubes, stored_xrays
from raylift.geometry import View
from raylift.images.hounsfield import WINDOW
from raylift.images.volume import Volume
from raylift.model.weights_info import Calibration
from raylift.plots.drawing import save_figure
from raylift.reconstruction.reconstructor import AIR_BELOW, Reconstructor

LEVELS = (0.5, 0.8, 0.95)
BINS = 12  # of the reliability curve, with about the same number of voxels each
EDGES = np.geomspace(0.1, 4000, 1024)  # HU; edges of the intervals of the standard deviation, 1 % wide


def offsets(volume: Volume, uncertainty: Volume, truth: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Return the absolute errors and standard deviations in HU, (voxels,) each, of all voxels but common air.

    Voxels that are air in both volumes are left out, since they are easily right and would hide the uncertainty's
    quality. The truth is clipped to the network's window, as everywhere in evaluation.

    Args:
        volume: prediction in HU (z, y, x).
        uncertainty: predicted standard deviation in HU, on the same grid.
        truth: true volume in HU, on the same grid.
    """
    true = np.clip(truth.array.astype(np.float32), *WINDOW)
    body = (true > AIR_BELOW) | (volume.array > AIR_BELOW)
    return np.abs(volume.array - true)[body], uncertainty.array[body]


def coverage(errors: np.ndarray, deviations: np.ndarray, widths: Sequence[float] | None = None) -> dict[str, float]:
    """Return the shares of voxels inside of the intervals ± w σ, which should be 50, 80 and 95 %.

    Args:
        errors: absolute, in HU.
        deviations: σ, in HU.
        widths: w for each of `LEVELS`; those of the normal distribution by default.

    Returns:
        The shares in [0, 1], by the names "coverage_50", "coverage_80" and "coverage_95".
    """
    widths = widths or [float(norm.ppf(0.5 + level / 2)) for level in LEVELS]
    relative = errors / deviations
    return {f"coverage_{level:.0%}".rstrip("%"): float((relative <= width).mean())
            for level, width in zip(LEVELS, widths, strict=True)}  # fmt: skip


def calibrate(
    reconstructor: Reconstructor,
    dataset: PreparedDataset,
    split: str,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
    views: Sequence[View] | None = None,
) -> Calibration:
    """Return the calibration of the weights' uncertainty on patients outside of the training.

    Args:
        reconstructor: holds the weights.
        dataset: with the cases' true volumes and stored X-rays.
        split: of the dataset, on which to calibrate.
        progress: called with a case's name, the number of cases done and their total.
        views: of the stored X-rays; those of the weights by default. Other views need weights trained on any views.

    Returns:
        The factor of the standard deviations which makes their mean square that of the errors; the widths of the
        intervals that hold the `LEVELS` of the errors, in units of the standard deviations so scaled; the cases; and
        the largest re-projection error of a case where rays cross the whole cube.

    Raises:
        BadInput: the weights predict no uncertainty, or were trained on these patients.
    """
    check_cubes(dataset, reconstructor)
    cases, weights = dataset.cases(split), reconstructor.weights
    trained = weights.info.training.seen_cases & {case.name for case in cases}
    if trained:
        raise BadInput(weights.path, f"was trained on {', '.join(sorted(trained))}", "calibrate on other patients")
    selected, errors, deviations = tuple(views or reconstructor.lifted_network.views), [], []
    inside = 0.0
    for number, case in enumerate(cases, 1):
        reconstruction = reconstructor(stored_xrays(dataset, case, selected))
        if reconstruction.uncertainty is None:
            raise BadInput(weights.path, "predicts no uncertainty", "train a recipe with network.uncertainty")
        error, deviation = offsets(reconstruction.volume, reconstruction.uncertainty, case.truth)
        errors.append(error)
        inside = max(inside, reconstruction.error_inside)
        deviations.append(deviation)
        progress(case.name, number, len(cases))
    factor, widths = fit(np.concatenate(errors), np.concatenate(deviations))
    before = weights.info.uncertainty_factor
    names = [case.name for case in cases]
    return Calibration(factor=before * factor, widths=widths, cases=names, usual_error=inside)


def fit(errors: np.ndarray, deviations: np.ndarray) -> tuple[float, list[float]]:
    """Return the factor of the standard deviations that fits the errors, and the widths for `LEVELS`.

    Args:
        errors: absolute, in HU.
        deviations: σ, in HU.

    Returns:
        The factor that makes the mean square of the standard deviations that of the errors; and the numbers of scaled
        standard deviations that hold 50, 80 and 95 % of the errors.
    """
    # The ratio of means, since a few voxels with too small a σ would dominate the mean of e²/σ².
    factor = float(np.sqrt(np.square(errors).mean() / np.square(deviations).mean()))
    return factor, [float(width) for width in np.quantile(errors / (factor * deviations), LEVELS)]


def tally(errors: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """Return the sums from which a reliability curve is drawn; those of several cases may be added.

    Args:
        errors: absolute, in HU.
        deviations: σ, in HU.

    Returns:
        The number of voxels, the sum of σ² and that of the squared errors, by σ in the intervals of `EDGES`: (3, 1025).
    """
    interval = np.searchsorted(EDGES, deviations)
    parts = [None, np.square(deviations, dtype=float), np.square(errors, dtype=float)]
    return np.stack([np.bincount(interval, part, len(EDGES) + 1) for part in parts])


def draw_reliability(sums: np.ndarray, path: Path, title: str) -> Path:
    """Draw the root mean squared error against the predicted standard deviation, in bins of about equal size.

    Args:
        sums: as returned by `tally`, (3, 1025); for several cases their sum.
        path: of the PNG.
        title: heading of the figure.

    Returns:
        The path of the PNG.
    """
    counts = sums[0]
    bins = ((counts.cumsum() - counts / 2) * (BINS / counts.sum())).astype(int)
    voxels, predicted, measured = (np.bincount(bins, part, BINS) for part in sums)
    filled = voxels > 0
    predicted, measured = (np.sqrt(part[filled] / voxels[filled]) for part in (predicted, measured))
    figure = Figure(figsize=(4.5, 4.3), layout="constrained", facecolor="white")
    axes = figure.subplots()
    top = 1.05 * max(*predicted, *measured)
    axes.plot([0, top], [0, top], color="gray", linewidth=0.8, linestyle=":")
    axes.plot(predicted, measured, marker="o")
    axes.set(xlabel="predicted standard deviation (HU)", ylabel="root mean squared error (HU)", title=title,
             xlim=(0, top), ylim=(0, top))  # fmt: skip
    save_figure(figure, path)
    return path
