"""Pictures of volumes and X-rays, always upright and with the sides marked.

Every picture is hung as radiologists read it: superior at the top (anterior in axial planes), the patient's
left on the right of axial and coronal pictures, the patient's front on the left of sagittal ones.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from raylift.geometry import View
from raylift.images.hounsfield import WINDOW
from raylift.images.volume import Volume
from raylift.storage.atomic import replacing

# Windows in HU, beside the network's for planes. Means along a whole line never come near bone.
PROJECTION = (-1000.0, 200.0)
DIFFERENCE = (-500.0, 500.0)
PROJECTED_DIFFERENCE = (-200.0, 200.0)
DOUBTFUL = 400.0  # HU; a border whose place is not known
ROWS_PER_SHEET = 20
DPI = 110


@dataclass(frozen=True)
class Picture:
    """A 2D array (rows, columns) as it is to be shown.

    Args:
        array: row 0 is the top.
        size: height and width in mm.
        sides: what of the patient is at the left and right edge: R(ight), L(eft), A(nterior) or P(osterior).
    """

    array: np.ndarray
    size: tuple[float, float]
    sides: tuple[str, str] = ("", "")


def planes(volume: Volume) -> dict[str, Picture]:
    """The middle planes of a volume, hung for reading.

    Args:
        volume: any orientation; turned and flipped to the nearest anatomical axes first.

    Returns:
        "axial" (y, x), "coronal" (z from the top down, x) and "sagittal" (z from the top down, y) through
        voxel n // 2 of the remaining axis, values as in the volume.
    """
    volume = volume.axis_aligned()
    z, y, x = (n // 2 for n in volume.grid.shape)
    array = volume.array
    return _hung(volume, axial=array[z], coronal=array[::-1, y], sagittal=array[::-1, :, x])


def projections(volume: Volume) -> dict[str, Picture]:
    """Means of a volume along the patient's axes, with parallel rays, hung for reading.

    Args:
        volume: any orientation, as in `planes`; clip a scanner's padding (below -1000 HU) away before.

    Returns:
        "ap" (z from the top down, x), the mean along y, and "lateral" (z from the top down, y), the mean
        along x, in the volume's unit.
    """
    volume = volume.axis_aligned()
    array = volume.array[::-1]
    return _hung(volume, ap=array.mean(axis=1), lateral=array.mean(axis=2))


def _hung(volume: Volume, **arrays: np.ndarray) -> dict[str, Picture]:
    x, y, z = np.multiply(volume.grid.spacing, volume.grid.shape[::-1])
    sizes = {"axial": (y, x), "coronal": (z, x), "ap": (z, x), "sagittal": (z, y), "lateral": (z, y)}
    return {
        name: Picture(array, sizes[name], ("A", "P") if name in ("sagittal", "lateral") else ("R", "L"))
        for name, array in arrays.items()
    }


def xray_picture(image: np.ndarray, name: str = "") -> Picture:
    """An X-ray with its sides marked, as far as the view's name tells them.

    Args:
        image: line integrals (rows, columns), row 0 superior, square pixels.
        name: anything `View.parse` knows; another name, or an oblique angle, leaves the sides unmarked.
    """
    try:
        u = View.parse(name).u
    except ValueError:
        u = np.zeros(3)
    sides = {(1, 0): ("R", "L"), (-1, 0): ("L", "R"), (0, 1): ("A", "P"), (0, -1): ("P", "A")}
    height, width = image.shape
    return Picture(image, (height, width), sides.get((round(u[0], 3), round(u[1], 3)), ("", "")))


def montage(
    truth: Volume | None,
    prediction: Volume,
    xrays: Sequence[tuple[str, np.ndarray]],
    path: str | Path,
    title: str = "",
) -> Path:
    """Write a PNG of the X-rays that went in and the volume that came out, beside the true one if known.

    Args:
        truth: the CT in HU, resampled onto the prediction's grid if on another; None if there is none.
        prediction: the reconstruction in HU.
        xrays: name (see `xray_picture`) and line integrals (rows, columns) of each view; shown brighter where
            more is attenuated.
        path: of the PNG; its folder is made if missing.
        title: printed at the top.

    Returns:
        The path written.
    """
    # Clipped to the network's window, beyond which it is asked for nothing.
    prediction = _clipped(prediction.axis_aligned())
    rows = [("prediction", prediction)]
    if truth is not None:
        truth = truth.axis_aligned()
        if truth.grid != prediction.grid:
            truth = truth.resample(prediction.grid)
        truth = _clipped(truth)
        rows.insert(0, ("truth", truth))

    first = int(bool(xrays))  # grid row of the first volume
    lines, columns = first + len(rows) + (truth is not None), max(5, len(xrays))
    figure = Figure(figsize=(2.4 * columns, 2.65 * lines + 0.3), layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=13)
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, (name, image) in zip(grid[0], xrays, strict=False):
        _show_xray(axes, image, name)
        axes.set_title(f"X-ray {name}", fontsize=10)
    for row, (label, volume) in zip(grid[first:], rows, strict=False):
        _show_volume(row, volume, label, WINDOW, PROJECTION, "gray")
    _colour_bars(figure, grid[first : first + len(rows)], "HU")
    if truth is not None:
        error = Volume(prediction.array - truth.array, prediction.grid)
        _show_volume(grid[-1], error, "prediction − truth", DIFFERENCE, PROJECTED_DIFFERENCE, "RdBu_r")
        _colour_bars(figure, grid[-1:], "HU, prediction − truth")
    return save_figure(figure, path)


def gallery(volumes: dict[str, Volume], path: str | Path, title: str = "") -> Path:
    """Write a picture of one patient's volumes by several methods, a row each: planes, and means along y and x.

    Args:
        volumes: in HU, by the row's label, in order; the true one first if there is one.
        path: of the PNG or SVG; its folder is made if missing.
        title: printed at the top.

    Returns:
        The path written.
    """
    figure = Figure(figsize=(12, 2.5 * len(volumes) + 0.3), layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=13)
    grid = figure.subplots(len(volumes), 5, squeeze=False)
    for row, (label, volume) in zip(grid, volumes.items(), strict=True):
        _show_volume(row, _clipped(volume.axis_aligned()), _wrap(label), WINDOW, PROJECTION, "gray")
    _colour_bars(figure, grid, "HU")
    return save_figure(figure, path)


def agreement(names: Sequence[str], xrays: np.ndarray, reprojected: np.ndarray, path: str | Path) -> Path:
    """Write a picture of X-rays beside the projections of the volume made from them, a row for each view.

    Args:
        names: of the views (see `xray_picture`).
        xrays: line integrals (N, rows, columns) that were given.
        reprojected: those through the volume.
        path: of the PNG or SVG; its folder is made if missing.

    Returns:
        The path written.
    """
    figure = Figure(figsize=(9.6, 3.3 * len(names)), layout="constrained", facecolor="white")
    grid = figure.subplots(len(names), 3, squeeze=False)
    for row, name, given, again in zip(grid, names, xrays, reprojected, strict=True):
        low, high = (float(q) for q in np.quantile(given, [0.0, 0.998]))
        high = max(high, low + 1e-6)
        for axes, image, label in zip(row, (given, again), ("given", "of the volume"), strict=False):
            _show(axes, xray_picture(image, name), (low, high))
            axes.set_title(f"{name}, {label}", fontsize=10)
        _show(row[2], xray_picture(again - given, name), (-(high - low) / 2, (high - low) / 2), "RdBu_r")
        row[2].set_title("difference", fontsize=10)
        for image, columns, label in ((row[1], row[:2], "∫μ dl"), (row[2], row[2:], "of the volume − given")):
            figure.colorbar(
                image.images[0], ax=columns, location="bottom", shrink=0.7, aspect=40, pad=0.02, label=label
            )
    return save_figure(figure, path)


def doubtful_planes(volume: Volume, doubt: Volume | None, path: str | Path) -> Path:
    """Write a picture of a volume's middle planes, and those of its doubt below them.

    Args:
        volume: in HU.
        doubt: standard deviation of each voxel in HU, on the volume's grid; None where it is not told.
        path: of the PNG or SVG; its folder is made if missing.

    Returns:
        The path written.
    """
    figure = Figure(figsize=(9.6, 3.6 * (1 + (doubt is not None))), layout="constrained", facecolor="white")
    grid = figure.subplots(1 + (doubt is not None), 3, squeeze=False)
    shown = [(_clipped(volume.axis_aligned()), WINDOW, "gray", "HU")]
    if doubt is not None:
        shown.append((doubt.axis_aligned(), (0.0, DOUBTFUL), "inferno", "standard deviation, HU"))
    for row, (each, window, colours, label) in zip(grid, shown, strict=True):
        for axes, (name, picture) in zip(row, planes(each).items(), strict=True):
            _show(axes, picture, window, colours)
            axes.set_title(name, fontsize=10)
        figure.colorbar(row[0].images[0], ax=row, location="bottom", shrink=0.5, aspect=50, pad=0.02, label=label)
    return save_figure(figure, path)


@dataclass(frozen=True)
class SheetEntry:
    """A row of a contact sheet.

    Args:
        name: of the case.
        note: its status, or why it was rejected.
        xrays: name (see `xray_picture`) and line integrals (rows, columns) of each view; the first two are shown.
        volume: the CT in HU; or None.
        rejected: prints the note in red.
    """

    name: str
    note: str = ""
    xrays: Sequence[tuple[str, np.ndarray]] = ()
    volume: Volume | None = None
    rejected: bool = False


def contact_sheet(entries: Sequence[SheetEntry], path: str | Path) -> list[Path]:
    """Write PNGs with a row per case: its name and note, the first two X-rays, and the three middle planes.

    Args:
        entries: the cases; fetched by index and page by page, so a sequence may load them when asked.
        path: of the PNG. More than 20 cases go to several files: sheet-001.png and so on for sheet.png.

    Returns:
        The paths written, in order.
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
        row[0].text(0, 0.55, _wrap(entry.name), fontsize=9, weight="bold", va="bottom")
        row[0].text(0, 0.5, _wrap(entry.note), fontsize=8, color=ink, va="top")
        for axes, (name, image) in zip(row[1:3], entry.xrays, strict=False):
            _show_xray(axes, image, name)
            axes.set_title(f"X-ray {name}", fontsize=9)
        if entry.volume is not None:
            pictures = planes(entry.volume)
            for axes, name in zip(row[3:], ("coronal", "axial", "sagittal"), strict=True):
                _show(axes, pictures[name], WINDOW)
                axes.set_title(name, fontsize=9)
    save_figure(figure, path)


def _show_volume(
    row: Sequence[Axes],
    volume: Volume,
    label: str,
    window: tuple[float, float],
    projected: tuple[float, float],
    colours: str,
) -> None:
    for axes, (name, picture) in zip(row[:3], planes(volume).items(), strict=True):
        _show(axes, picture, window, colours)
        axes.set_title(name, fontsize=10)
    for axes, (name, picture) in zip(row[3:5], projections(volume).items(), strict=True):
        _show(axes, picture, projected, colours)
        axes.set_title(f"mean, {name}", fontsize=10)
    row[0].set_ylabel(label, fontsize=11)


def _show_xray(axes: Axes, image: np.ndarray, name: str) -> None:
    # A few pixels behind metal or a long oblique path must not darken the rest.
    low, high = (float(q) for q in np.quantile(image, [0.0, 0.998]))
    _show(axes, xray_picture(image, name), (low, max(high, low + 1e-6)))
    axes.set_xlabel(f"∫μ dl from {low:.1f} to {high:.1f}", fontsize=8)


def _show(axes: Axes, picture: Picture, window: tuple[float, float], colours: str = "gray") -> None:
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


def _colour_bars(figure: Figure, rows: np.ndarray, label: str) -> None:
    for columns, suffix in ((slice(0, 3), ""), (slice(3, 5), ", mean along the line")):
        image = rows[-1, columns][0].images[0]
        bar = figure.colorbar(image, ax=rows[:, columns], location="bottom", shrink=0.6, aspect=40, pad=0.02)
        bar.set_ticks(np.linspace(image.norm.vmin, image.norm.vmax, 5).tolist())
        bar.set_label(label + suffix, fontsize=9)
        bar.ax.tick_params(labelsize=8)


def _clipped(volume: Volume) -> Volume:
    return Volume(np.clip(volume.array.astype(np.float32), *WINDOW), volume.grid)


def _wrap(text: str) -> str:
    return textwrap.fill(text, 28)


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure as a whole or not at all; the path's ending, .png or .svg, says how. Returns the path."""
    path = Path(path)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=DPI)
    return path
