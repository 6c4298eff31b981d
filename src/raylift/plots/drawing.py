"""Drawing of pictures into axes, and saving of figures."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from raylift.images.hounsfield import WINDOW
from raylift.images.volume import Volume
from raylift.plots.pictures import Picture, planes, projections, xray_picture
from raylift.storage.atomic import atomic_write

DPI = 110


def draw_volume(
    row: Sequence[Axes],
    volume: Volume,
    label: str,
    window: tuple[float, float],
    projected: tuple[float, float],
    colours: str,
) -> None:
    """Draw the three middle planes and the two mean projections of a volume into a row of axes.

    Args:
        row: five axes.
        volume: in HU.
        label: of the row.
        window: lowest and highest value of the planes.
        projected: lowest and highest value of the mean projections.
        colours: name of a colour map.
    """
    for axes, (name, picture) in zip(row[:3], planes(volume).items(), strict=True):
        draw(axes, picture, window, colours)
        axes.set_title(name, fontsize=10)
    for axes, (name, picture) in zip(row[3:5], projections(volume).items(), strict=True):
        draw(axes, picture, projected, colours)
        axes.set_title(f"mean, {name}", fontsize=10)
    row[0].set_ylabel(label, fontsize=11)


def draw_xray(axes: Axes, image: np.ndarray, name: str) -> None:
    """Draw an X-ray with the range of its line integrals below it.

    Args:
        axes: to draw into.
        image: line integrals (rows, columns).
        name: of the view (see `xray_picture`).
    """
    # A few pixels behind metal or on a long oblique path must not darken the rest.
    low, high = (float(q) for q in np.quantile(image, [0.0, 0.998]))
    draw(axes, xray_picture(image, name), (low, max(high, low + 1e-6)))
    axes.set_xlabel(f"∫μ dl from {low:.1f} to {high:.1f}", fontsize=8)


def draw(axes: Axes, picture: Picture, window: tuple[float, float], colours: str = "gray") -> None:
    """Draw a picture at its true proportions, with its sides marked.

    Args:
        axes: to draw into.
        picture: the picture.
        window: lowest and highest value of the colour map.
        colours: name of a colour map.
    """
    height, width = picture.size
    axes.imshow(
        picture.array,
        cmap=colours,
        vmin=window[0],
        vmax=window[1],
        extent=(0, width, height, 0),
        interpolation="nearest",
    )
    axes.set_axis_on()
    axes.set(xticks=[], yticks=[])
    for position, side in zip((0.03, 0.97), picture.sides, strict=True):
        axes.text(
            position,
            0.97,
            side,
            transform=axes.transAxes,
            ha="left" if position < 0.5 else "right",
            va="top",
            fontsize=9,
            color="gold",
            path_effects=[withStroke(linewidth=2, foreground="black")],
        )


def draw_colour_bars(figure: Figure, rows: np.ndarray, label: str) -> None:
    """Draw the colour bars of the planes and of the mean projections below rows of volumes.

    Args:
        figure: the figure.
        rows: axes (rows, 5) filled by `draw_volume`.
        label: unit of the values.
    """
    for columns, suffix in ((slice(0, 3), ""), (slice(3, 5), ", mean along the line")):
        image = rows[-1, columns][0].images[0]
        bar = figure.colorbar(image, ax=rows[:, columns], location="bottom", shrink=0.6, aspect=40, pad=0.02)
        bar.set_ticks(np.linspace(image.norm.vmin, image.norm.vmax, 5).tolist())
        bar.set_label(label + suffix, fontsize=9)
        bar.ax.tick_params(labelsize=8)


def clip_to_window(volume: Volume) -> Volume:
    """Return a volume in HU clipped to the network's window, float32."""
    return Volume(np.clip(volume.array.astype(np.float32), *WINDOW), volume.grid)


def wrap(text: str) -> str:
    """Return a text broken into lines short enough for a label."""
    return textwrap.fill(text, 28)


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure to a file, as a whole or not at all.

    Args:
        figure: the figure.
        path: of the file; its ending, .png or .svg, sets the format.

    Returns:
        The path.
    """
    path = Path(path)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=DPI)
    return path
