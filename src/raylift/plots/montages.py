"""Figures of a volume beside its X-rays, beside the true volume, and beside those of other methods."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from raylift.images.hounsfield import WINDOW
from raylift.images.volume import Volume
from raylift.plots.drawing import clip_to_window, draw, draw_colour_bars, draw_volume, draw_xray, save_figure, wrap
from raylift.plots.pictures import planes, xray_picture

# Windows in HU; planes use the network's. Means along a whole line are far below the values of bone.
PROJECTION = (-1000.0, 200.0)
DIFFERENCE = (-500.0, 500.0)
PROJECTED_DIFFERENCE = (-200.0, 200.0)
MOST_UNCERTAIN = 400.0  # HU, the uncertainty at an organ's border whose position is unknown


def montage(
    truth: Volume | None,
    prediction: Volume,
    xrays: Sequence[tuple[str, np.ndarray]],
    path: str | Path,
    title: str = "",
) -> Path:
    """Write a PNG of X-rays and the volume reconstructed from them, with the true volume if it is known.

    Args:
        truth: the CT in HU, resampled onto the prediction's grid if it has another; None if there is none.
        prediction: the reconstruction in HU.
        xrays: name (see `xray_picture`) and line integrals (rows, columns) of each view; stronger attenuation is
            brighter.
        path: of the PNG; its folder is created if missing.
        title: shown at the top.

    Returns:
        The path of the PNG.
    """
    # Values outside the network's window are not part of its task.
    prediction = clip_to_window(prediction.axis_aligned())
    rows = [("prediction", prediction)]
    if truth is not None:
        truth = truth.axis_aligned()
        if truth.grid != prediction.grid:
            truth = truth.resample(prediction.grid)
        truth = clip_to_window(truth)
        rows.insert(0, ("truth", truth))

    first = int(bool(xrays))  # grid row of the first volume
    lines, columns = first + len(rows) + (truth is not None), max(5, len(xrays))
    figure = Figure(figsize=(2.4 * columns, 2.65 * lines + 0.3), layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=13)
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, (name, image) in zip(grid[0], xrays, strict=False):
        draw_xray(axes, image, name)
        axes.set_title(f"X-ray {name}", fontsize=10)
    for row, (label, volume) in zip(grid[first:], rows, strict=False):
        draw_volume(row, volume, label, WINDOW, PROJECTION, "gray")
    draw_colour_bars(figure, grid[first : first + len(rows)], "HU")
    if truth is not None:
        error = Volume(prediction.array - truth.array, prediction.grid)
        draw_volume(grid[-1], error, "prediction − truth", DIFFERENCE, PROJECTED_DIFFERENCE, "RdBu_r")
        draw_colour_bars(figure, grid[-1:], "HU, prediction − truth")
    return save_figure(figure, path)


def gallery(volumes: dict[str, Volume], path: str | Path, title: str = "") -> Path:
    """Write a figure of one patient's volumes by several methods, a row each: planes, and means along y and x.

    Args:
        volumes: in HU, by the row's label, in order; the true one first if there is one.
        path: of the PNG or SVG; its folder is created if missing.
        title: shown at the top.

    Returns:
        The path of the figure.
    """
    figure = Figure(figsize=(12, 2.5 * len(volumes) + 0.3), layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=13)
    grid = figure.subplots(len(volumes), 5, squeeze=False)
    for row, (label, volume) in zip(grid, volumes.items(), strict=True):
        draw_volume(row, clip_to_window(volume.axis_aligned()), wrap(label), WINDOW, PROJECTION, "gray")
    draw_colour_bars(figure, grid, "HU")
    return save_figure(figure, path)


def agreement(names: Sequence[str], xrays: np.ndarray, reprojected: np.ndarray, path: str | Path) -> Path:
    """Write a figure of X-rays beside the projections of the volume reconstructed from them, a row for each view.

    Args:
        names: of the views (see `xray_picture`).
        xrays: line integrals (N, rows, columns) of the X-rays.
        reprojected: line integrals (N, rows, columns) through the volume.
        path: of the PNG or SVG; its folder is created if missing.

    Returns:
        The path of the figure.
    """
    figure = Figure(figsize=(9.6, 3.3 * len(names)), layout="constrained", facecolor="white")
    grid = figure.subplots(len(names), 3, squeeze=False)
    for row, name, xray, projection in zip(grid, names, xrays, reprojected, strict=True):
        low, high = (float(q) for q in np.quantile(xray, [0.0, 0.998]))
        high = max(high, low + 1e-6)
        for axes, image, label in zip(row, (xray, projection), ("X-ray", "of the volume"), strict=False):
            draw(axes, xray_picture(image, name), (low, high))
            axes.set_title(f"{name}, {label}", fontsize=10)
        draw(row[2], xray_picture(projection - xray, name), (-(high - low) / 2, (high - low) / 2), "RdBu_r")
        row[2].set_title("difference", fontsize=10)
        for image, columns, label in ((row[1], row[:2], "∫μ dl"), (row[2], row[2:], "of the volume − X-ray")):
            figure.colorbar(
                image.images[0], ax=columns, location="bottom", shrink=0.7, aspect=40, pad=0.02, label=label
            )
    return save_figure(figure, path)


def uncertainty_planes(volume: Volume, uncertainty: Volume | None, path: str | Path) -> Path:
    """Write a figure of a volume's middle planes, with those of its uncertainty below them.

    Args:
        volume: in HU.
        uncertainty: standard deviation of each voxel in HU, on the volume's grid; None if it is unknown.
        path: of the PNG or SVG; its folder is created if missing.

    Returns:
        The path of the figure.
    """
    figure = Figure(figsize=(9.6, 3.6 * (1 + (uncertainty is not None))), layout="constrained", facecolor="white")
    grid = figure.subplots(1 + (uncertainty is not None), 3, squeeze=False)
    volumes = [(clip_to_window(volume.axis_aligned()), WINDOW, "gray", "HU")]
    if uncertainty is not None:
        volumes.append((uncertainty.axis_aligned(), (0.0, MOST_UNCERTAIN), "inferno", "standard deviation, HU"))
    for row, (pictured, window, colours, label) in zip(grid, volumes, strict=True):
        for axes, (name, picture) in zip(row, planes(pictured).items(), strict=True):
            draw(axes, picture, window, colours)
            axes.set_title(name, fontsize=10)
        figure.colorbar(row[0].images[0], ax=row, location="bottom", shrink=0.5, aspect=50, pad=0.02, label=label)
    return save_figure(figure, path)
