"""Figures of a study's scores and of its trained rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from raylift.evaluation.comparison import TRUTH
from raylift.evaluation.methods import from_weights
from raylift.evaluation.report import HEADINGS
from raylift.evaluation.saliency_figure import draw_dependence
from raylift.plots.drawing import save_figure
from raylift.plots.montages import gallery
from raylift.reconstruction.reconstructor import Reconstructor
from raylift.studies.cells import CaseSet, Cell
from raylift.studies.results import RowResult
from raylift.studies.tables import aggregate

METRICS = ("ssim", "psnr")


def draw_scores(results: Sequence[RowResult], tests: Sequence[str], path: Path) -> None:
    """Draw the scores of a study, as PNG and SVG: a panel per test set and metric, a line per row.

    Each line shows the mean, the score of each seed, and the interval over the patients.

    Args:
        results: results of cells, as for `raylift.studies.tables`.
        tests: names of the test sets.
        path: path of the figure without a file ending.
    """
    tables = {test: table for test in tests if (table := aggregate(results, test))}
    rows = list(dict.fromkeys(result.row for result in results))
    figure = Figure(figsize=(1.5 + 3.2 * len(METRICS), 0.6 + len(tables) * (0.9 + 0.28 * len(rows))),
                    layout="constrained", facecolor="white")  # fmt: skip
    for (test, table), panels in zip(
        tables.items(), figure.subplots(len(tables), len(METRICS), squeeze=False), strict=True
    ):
        for metric, axes in zip(METRICS, panels, strict=True):
            for position, row in enumerate(rows):
                if row not in table:
                    continue
                entry = table[row][metric]
                if entry.interval is not None:
                    axes.plot(entry.interval, (position, position), color="tab:blue", linewidth=2, alpha=0.5)
                seeds = [
                    np.mean([scores[metric] for scores in result.scores[test].values()])
                    for result in results
                    if result.row == row and test in result.scores
                ]
                axes.plot(seeds, [position] * len(seeds), "|", color="black", markersize=6)
                axes.plot(entry.mean, position, "o", color="tab:blue", markersize=5)
            axes.set(xlabel=HEADINGS[metric], ylim=(len(rows) - 0.5, -0.5), yticks=range(len(rows)))
            axes.set_yticklabels(rows if metric == METRICS[0] else [], fontsize=8)
            axes.grid(axis="x", alpha=0.3)
        panels[0].set_title(test, loc="left", fontsize=10)
    for ending in ("png", "svg"):
        save_figure(figure, path.with_name(f"{path.name}.{ending}"))


def draw_figures(kind: str, folder: Path, cells: Sequence[Cell], sets: Sequence[CaseSet]) -> None:
    """Draw the figures of trained rows, as PNG and SVG.

    Args:
        kind: "gradients" for a figure per trained row, "gallery" for one per patient.
        folder: folder for the figures.
        cells: finished cells; the first one of each row is drawn.
        sets: the test sets whose patients are shown.
    """
    trained: dict[str, Cell] = {}
    for cell in cells:
        if cell.row.recipe:
            trained.setdefault(cell.row.label, cell)
    reconstructors = {label: Reconstructor.from_pretrained(cell.run) for label, cell in trained.items()}
    for test in sets:
        cases = test.dataset.cases(test.split)
        test_folder = folder / test.name.replace(" ", "-")
        if kind == "gradients":
            for label, reconstructor in reconstructors.items():
                draw_dependence(reconstructor, test.dataset, cases, test_folder / "-".join(label.split()), label)
            continue
        for case in cases:
            volumes = {TRUTH: case.truth}
            volumes |= {label: from_weights(r)(test.dataset, case) for label, r in reconstructors.items()}
            for ending in ("png", "svg"):
                gallery(volumes, test_folder / f"{case.name}.{ending}", case.name)
