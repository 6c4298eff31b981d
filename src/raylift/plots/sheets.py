"""Contact sheets: figures of many cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from raylift.images.hounsfield import WINDOW
from raylift.images.volume import Volume
from raylift.plots.drawing import draw, draw_xray, save_figure, wrap
from raylift.plots.pictures import planes

ROWS_PER_SHEET = 20


@dataclass(frozen=True)
class SheetEntry:
    """A row of a contact sheet.

    Args:
        name: of the case.
        note: its status, or the reason for its rejection.
        xrays: name (see `xray_picture`) and line integrals (rows, columns) of each view; the first two are shown.
        volume: the CT in HU, or None.
        rejected: show the note in red.
    """

    name: str
    note: str = ""
    xrays: Sequence[tuple[str, np.ndarray]] = ()
    volume: Volume | None = None
    rejected: bool = False


def contact_sheet(entries: Sequence[SheetEntry], path: str | Path) -> list[Path]:
    """Write PNGs with a row per case: its name and note, the first two X-rays, and the three middle planes.

    Args:
        entries: the cases; they are accessed by index, page by page, so a sequence may load them on access.
        path: of the PNG. More than 20 cases are divided among several files: for sheet.png, sheet-001.png and so on.

    Returns:
        The paths of the PNGs, in order.
    """
    path = Path(path)
    starts = range(0, len(entries), ROWS_PER_SHEET)
    paths = [path.with_stem(f"{path.stem}-{page:03d}") for page in range(1, len(starts) + 1)]
    if len(starts) == 1:
        paths = [path]
    for start, page in zip(starts, paths, strict=True):
        _sheet([entries[i] for i in range(start, min(start + ROWS_PER_SHEET, len(entries)))], page)
    return paths


def _sheet(entries: Sequence[SheetEntry], path: Path) -> None:
    figure = Figure(figsize=(11, 1.75 * len(entries) + 0.4), layout="constrained", facecolor="white")
    grid = figure.subplots(len(entries), 6, squeeze=False, width_ratios=[1.5, 1, 1, 1, 1, 1])
    for axes in grid.flat:
        axes.axis("off")
    for row, entry in zip(grid, entries, strict=True):
        ink = "firebrick" if entry.rejected else "dimgray"
        row[0].text(0, 0.55, wrap(entry.name), fontsize=9, weight="bold", va="bottom")
        row[0].text(0, 0.5, wrap(entry.note), fontsize=8, color=ink, va="top")
        for axes, (name, image) in zip(row[1:3], entry.xrays, strict=False):
            draw_xray(axes, image, name)
            axes.set_title(f"X-ray {name}", fontsize=9)
        if entry.volume is not None:
            pictures = planes(entry.volume)
            for axes, name in zip(row[3:], ("coronal", "axial", "sagittal"), strict=True):
                draw(axes, pictures[name], WINDOW)
                axes.set_title(name, fontsize=9)
    save_figure(figure, path)
