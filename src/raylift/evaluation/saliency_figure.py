"""Figure and table of the dependence of volumes on each view."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from raylift.data.dataset import Case, PreparedDataset
from raylift.evaluation.methods import check_cubes, stored_xrays
from raylift.evaluation.saliency import SLABS, explain
from raylift.plots.drawing import save_figure
from raylift.reconstruction.reconstructor import Reconstructor
from raylift.storage.atomic import atomic_write


def draw_dependence(
    reconstructor: Reconstructor,
    dataset: PreparedDataset,
    cases: Sequence[Case],
    folder: Path,
    title: str,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> dict[str, list[float]]:
    """Write `gradients.png`, `gradients.svg` and `gradients.csv` for some patients.

    The figure shows, for the first patient, the norm of the volume's gradient by each X-ray's pixels, and that of each
    slab along the height of the body; and for all patients, the share of each view.

    Args:
        reconstructor: holds the weights.
        dataset: with the cases' stored X-rays.
        cases: one per patient.
        folder: where to write the files.
        title: heading of the figure.
        progress: called with a case's name, the number of cases done and their total.

    Returns:
        Each view's share of the gradient's norm, by case.
    """
    lifted_network = reconstructor.lifted_network
    check_cubes(dataset, reconstructor)
    dependences = {}
    for number, case in enumerate(cases, 1):
        dependences[case.name] = explain(
            lifted_network, reconstructor.match(stored_xrays(dataset, case, lifted_network.views)).images
        )
        progress(case.name, number, len(cases))
    first, names = next(iter(dependences.values())), [view.name for view in lifted_network.views]
    columns = max(3, len(names))
    figure = Figure(figsize=(2.3 * columns, 7), layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=13)
    above, below = figure.subfigures(2, 1, height_ratios=[1, 1.3], squeeze=False)[:, 0]
    brightest = float(np.quantile(first.maps, 0.998))
    for axes, image, name in zip(above.subplots(1, len(names), squeeze=False)[0], first.maps, names, strict=True):
        axes.imshow(image, cmap="magma", vmin=0, vmax=brightest)
        axes.set(xticks=[], yticks=[], title=name)
    above.suptitle(f"{next(iter(dependences))}: |∂V / ∂ X-ray|", fontsize=10)
    left, right = below.subplots(1, 2)
    heights = (np.arange(SLABS) + 0.5) / SLABS * lifted_network.grid.shape[0] * lifted_network.grid.spacing[2]
    for k, name in enumerate(names):
        left.plot(first.by_slab[:, k], heights, label=name)
    left.set(xlabel="norm of the slab's gradient", ylabel="height in the cube (mm)", title="within the patient")
    left.legend(fontsize=8)
    shares = np.array([dependence.shares for dependence in dependences.values()])
    right.boxplot(shares, tick_labels=names)
    right.set(ylabel="share of the gradient's norm", title=f"across {len(shares)} patients")
    right.axhline(1 / len(names), color="gray", linewidth=0.8, linestyle=":")
    for ending in ("png", "svg"):
        save_figure(figure, folder / f"gradients.{ending}")
    with atomic_write(folder / "gradients.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", *names])
        writer.writerows([name, *map(float, d.shares)] for name, d in dependences.items())
    return {name: d.shares.tolist() for name, d in dependences.items()}
