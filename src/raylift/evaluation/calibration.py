"""Whether a volume's uncertainty is right: how far voxels are off, beside how far they were said to be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import norm

from raylift.data.dataset import PreparedDataset
from raylift.errors import BadInput
from raylift.evaluation.methods import check_cubes, stored_xrays
from raylift.images.hounsfield import WINDOW
from raylift.images.volume import Volume
from raylift.model.weights_info import Calibration
from raylift.plots.drawing import save_figure
from raylift.reconstruction.reconstructor import AIR_BELOW, Reconstructor

LEVELS = (0.5, 0.8, 0.95)
BINS = 12  # of the reliability curve, with about as many voxels each
EDGES = np.geomspace(0.1, 4000, 1024)  # HU; intervals of a standard deviation, 1 % wide


def offsets(volume: Volume, uncertainty: Volume, truth: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Absolute errors and standard deviations in HU of the voxels that are not air in both volumes, (voxels,) each.

    Air is easily right and would hide what the uncertainty is worth.

    The truth is clipped to the network's window, as everywhere in evaluation.
    """
    true = np.clip(truth.array.astype(np.float32), *WINDOW)
    body = (true > AIR_BELOW) | (volume.array > AIR_BELOW)
    return np.abs(volume.array - true)[body], uncertainty.array[body]


def coverage(errors: np.ndarray, deviations: np.ndarray, widths: Sequence[float] | None = None) -> dict[str, float]:
    """Share of voxels inside of the intervals ± w σ that are to hold 50, 80 and 95 % of them.

    Args:
        errors: absolute, in HU.
        deviations: σ, in HU.
        widths: w for each of `LEVELS`; those of the normal distribution by default.

    Returns:
        "coverage_50", "coverage_80", "coverage_95".
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
) -> Calibration:
    """What makes the uncertainty of weights right on some patients, who must not be those of the training.

    Returns:
        "factor" of the standard deviations, which makes their mean square that of the errors; "widths" of the
        intervals of `LEVELS` in units of the standard deviation then, as many σ as hold that share of the voxels; and
        the names of the "cases".

    Raises:
        BadInput: the weights tell no uncertainty, or were trained on these patients.
    """
    check_cubes(dataset, reconstructor)
    cases, weights = dataset.cases(split), reconstructor.weights
    known = weights.info.training.seen_cases & {case.name for case in cases}
    if known:
        raise BadInput(weights.path, f"was trained on {', '.join(sorted(known))}", "calibrate on other patients")
    errors, deviations = [], []
    for number, case in enumerate(cases, 1):
        made = reconstructor(stored_xrays(dataset, case, reconstructor.lifted_network.views))
        if made.uncertainty is None:
            raise BadInput(weights.path, "tells no uncertainty", "train a recipe with network.uncertainty")
        error, deviation = offsets(made.volume, made.uncertainty, case.truth)
        errors.append(error)
        deviations.append(deviation)
        progress(case.name, number, len(cases))
    factor, widths = fit(np.concatenate(errors), np.concatenate(deviations))
    before = weights.info.uncertainty_factor
    return Calibration(factor=before * factor, widths=widths, cases=[case.name for case in cases])


def fit(errors: np.ndarray, deviations: np.ndarray) -> tuple[float, list[float]]:
    """The factor that makes the mean square of standard deviations that of the errors, and widths for `LEVELS` then.

    Args:
        errors: absolute, in HU.
        deviations: σ, in HU.

    Returns:
        The factor, and as many σ, after it is applied, as hold 50, 80 and 95 % of the errors.
    """
    # Mean by mean: a few voxels that were thought certain would decide the mean of e²/σ².
    factor = float(np.sqrt(np.square(errors).mean() / np.square(deviations).mean()))
    return factor, [float(width) for width in np.quantile(errors / (factor * deviations), LEVELS)]


def tally(errors: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """What a reliability curve needs to know of a case; those of several cases are added.

    Args:
        errors: absolute, in HU.
        deviations: σ, in HU.

    Returns:
        The number of voxels, the sum of σ² and that of the squared errors, by σ in the intervals of `EDGES`: (3, 1025).
    """
    place = np.searchsorted(EDGES, deviations)
    parts = [None, np.square(deviations, dtype=float), np.square(errors, dtype=float)]
    return np.stack([np.bincount(place, part, len(EDGES) + 1) for part in parts])


def draw_reliability(tallied: np.ndarray, path: Path, title: str) -> Path:
    """The root mean squared error beside the standard deviation that was said, in bins of about as many voxels each.

    Args:
        tallied: by `tally`, (3, 1025); of several cases their sum.
        path: of the PNG.
        title: above it.
    """
    counts = tallied[0]
    bins = ((counts.cumsum() - counts / 2) * (BINS / counts.sum())).astype(int)
    voxels, said, found = (np.bincount(bins, part, BINS) for part in tallied)
    filled = voxels > 0
    said, found = (np.sqrt(part[filled] / voxels[filled]) for part in (said, found))
    figure = Figure(figsize=(4.5, 4.3), layout="constrained", facecolor="white")
    axes = figure.subplots()
    top = 1.05 * max(*said, *found)
    axes.plot([0, top], [0, top], color="gray", linewidth=0.8, linestyle=":")
    axes.plot(said, found, marker="o")
    axes.set(xlabel="standard deviation said (HU)", ylabel="root mean squared error (HU)", title=title,
             xlim=(0, top), ylim=(0, top))  # fmt: skip
    save_figure(figure, path)
    return path
