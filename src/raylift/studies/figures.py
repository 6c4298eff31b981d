"""The figures that studies make of their trained rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raylift.evaluation.compare import TRUTH
from raylift.evaluation.dependence import draw_dependence
from raylift.evaluation.figures import gallery
from raylift.evaluation.methods import from_weights
from raylift.reconstruction import Reconstructor
from raylift.studies.cells import CaseSet, Cell


def draw(kind: str, folder: Path, cells: Sequence[Cell], sets: Sequence[CaseSet]) -> None:
    """Draw "gradients", a figure per trained row, or "gallery", one per patient; each as PNG and SVG.

    Args:
        kind: of figure.
        folder: of the pictures.
        cells: finished; each row's first seed is drawn.
        sets: whose patients are shown.
    """
    trained: dict[str, Cell] = {}
    for cell in cells:
        if cell.row.recipe:
            trained.setdefault(cell.row.label, cell)
    reconstructors = {label: Reconstructor.from_pretrained(cell.run) for label, cell in trained.items()}
    for test in sets:
        cases = test.dataset.cases(test.split)
        place = folder / test.name.replace(" ", "-")
        if kind == "gradients":
            for label, reconstructor in reconstructors.items():
                draw_dependence(reconstructor, test.dataset, cases, place / "-".join(label.split()), label)
            continue
        for case in cases:
            volumes = {TRUTH: case.truth}
            volumes |= {label: from_weights(r)(test.dataset, case) for label, r in reconstructors.items()}
            for ending in ("png", "svg"):
                gallery(volumes, place / f"{case.name}.{ending}", case.name)
