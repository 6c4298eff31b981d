"""Read CT series as volumes.

highdicom's volumes are not used: they take only perpendicular slices at equal distances whose attributes agree to the
last digit, and convert padding like tissue. Here a line is fitted to the slices' positions, so that rounding is no
error, slices of a tilted gantry are resampled, and the attribute that differs is named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut

from raylift.errors import BadInput
from raylift.geometry import MOST_VOXELS, VolumeGrid
from raylift.images.volume import AIR, Volume
from raylift.io.dicom.files import first_line, read_dicom_file
from raylift.io.dicom.pixels import check_decodable, stored_values
from raylift.io.dicom.slices import PHASES, Slice, find_slices, functional_group
from raylift.io.shear import straightened

SAME_PLANE = 0.5  # degrees; slices of one volume may differ by so much, from rounded cosines
ROUNDED_MM = 0.2  # distance from the fitted line that rounded positions have; at most `ROUNDED_SHARE` of the spacing
ROUNDED_SHARE = 0.3


def read_series(path: Path) -> Volume:
    """Read the only CT series in a folder, or in an Enhanced CT file.

    Slices that are sheared along a straight line, as those of a tilted gantry, are resampled to a box by linear
    interpolation within each slice. Padding becomes air.

    Args:
        path: the folder or the file.

    Returns:
        The volume in Hounsfield units. Its notes say what was left out, and whether it was resampled.

    Raises:
        BadInput: there is no CT series or more than one, or its slices do not form a volume.
    """
    slices, notes = find_slices(path)
    slices = _sorted(path, slices)
    _check_alike(path, slices)
    step = _fitted_step(path, slices)
    volume = _stack(path, slices, step, notes)
    # What a step moves each slice by, within its plane.
    return straightened(path, volume, slices[0].axes @ step)


# --- Whether they form a volume -------------------------------------------------------------------------------------


def _sorted(path: Path, slices: list[Slice]) -> list[Slice]:
    """Return slices sorted along their normal.

    Raises:
        BadInput: there is only one, or several are at one position.
    """
    if len(slices) < 2:
        raise BadInput(path, "a single DICOM slice", "give the folder of the whole series")
    normal = slices[0].normal
    slices = sorted(slices, key=lambda one: float(normal @ one.corner))
    heights = np.array([normal @ one.corner for one in slices])
    gaps = np.diff(heights)
    if heights[-1] - heights[0] < 0.1:
        raise BadInput(path, "all slices have the same position", "give a series of slices along the patient")
    typical = float(np.median(gaps[gaps > 0.01])) if (gaps > 0.01).any() else 0.0
    doubled = np.flatnonzero(gaps < 0.4 * typical)
    if len(doubled):
        raise BadInput(path, *_doubled(slices, doubled))
    if gaps.max() > 1.6 * typical:
        where = float(heights[gaps.argmax()])
        problem = f"slice gaps from {gaps.min():.2f} to {gaps.max():.2f} mm, the largest at {where:.1f} mm"
        raise BadInput(path, problem, "slices are missing: export the whole series")
    return slices


def _doubled(slices: Sequence[Slice], doubled: np.ndarray) -> tuple[str, str]:
    """Return the problem and the remedy for slices at one position: what distinguishes them, if anything does."""
    pairs = [(slices[k], slices[k + 1]) for k in doubled]
    problem = f"{len(pairs)} of {len(slices)} slices are at the position of another ({pairs[0][0]}, {pairs[0][1]})"
    for keyword, meaning in PHASES.items():
        if all(a.phase.get(keyword) != b.phase.get(keyword) for a, b in pairs):
            return f"{problem}: several {meaning}", f"put those of each {keyword} in their own folder"
    return problem, "remove one of each pair"


def _check_alike(path: Path, slices: Sequence[Slice]) -> None:
    """Check that slices have one size, one pixel spacing and one orientation.

    Raises:
        BadInput: they differ; the message says in what.
    """
    shapes = Counter(one.shape for one in slices)
    if len(shapes) > 1:
        sizes = " and ".join(f"{rows} × {columns} pixels ({count} slices)" for (rows, columns), count in shapes.items())
        raise BadInput(path, f"slices of {sizes}", "put those of each size in their own folder")
    first = slices[0]
    for one in slices:
        if not np.allclose(one.spacing, first.spacing, rtol=1e-3):
            ours, theirs = (f"{x.spacing[1]:g} × {x.spacing[0]:g} mm in {x}" for x in (first, one))
            raise BadInput(path, f"pixels of {ours} and {theirs}", "put those of each size in their own folder")
        turns = np.degrees(np.linalg.norm(one.axes - first.axes, axis=1))
        if turns.max() > SAME_PLANE:
            problem = f"slices turned against each other by {turns.max():.1f}° ({first}, {one})"
            raise BadInput(path, problem, "put those of each direction in their own folder")
    voxels = len(slices) * first.shape[0] * first.shape[1]
    if voxels > MOST_VOXELS:
        raise BadInput(path, f"{len(slices)} slices of {first.shape[0]} × {first.shape[1]} pixels", "give one scan")


def _fitted_step(path: Path, slices: Sequence[Slice]) -> np.ndarray:
    """Return the step (3,) in mm from one slice to the next: of the line that fits the slices' positions best.

    Raises:
        BadInput: the positions do not lie on a line at equal distances.
    """
    corners = np.array([one.corner for one in slices])
    numbers = np.arange(len(slices)) - (len(slices) - 1) / 2
    step: np.ndarray = numbers @ (corners - corners.mean(0)) / (numbers @ numbers)
    off = corners - corners.mean(0) - np.outer(numbers, step)
    spacing = float(slices[0].normal @ step)
    if np.abs(off).max() > min(ROUNDED_MM, ROUNDED_SHARE * spacing):
        one, axis = np.unravel_index(np.abs(off).argmax(), off.shape)
        distance = f"{abs(off[one, axis]):.2f} mm off along {'xyz'[axis]}"
        problem = f"its slices do not lie evenly on a line: {slices[one]} is {distance}"
        raise BadInput(path, problem, "put the slices of each scan in their own folder")
    return step


# --- Their values ---------------------------------------------------------------------------------------------------


def _stack(path: Path, slices: Sequence[Slice], step: np.ndarray, notes: Sequence[str]) -> Volume:
    """Return the slices' values as a volume, as if each lay above the one before.

    Raises:
        BadInput: a file is damaged, or compressed in a way that cannot be decoded.
    """
    first = slices[0]
    array: np.ndarray = np.empty((len(slices), *first.shape), np.int16)
    whole = lru_cache(1)(read_dicom_file)
    for index, one in enumerate(slices):
        values = _hounsfield(one, whole)
        if array.dtype == np.int16 and not _fits(values):
            array = array.astype(np.float32)
        array[index] = values
    axes = np.stack([*first.axes, first.normal], 1)
    x, y, z = first.corner
    spacing = (*first.spacing, float(first.normal @ step))
    a, b, c, d, e, f, g, h, i = (float(cosine) for cosine in axes.ravel())
    grid = VolumeGrid(array.shape, spacing, (float(x), float(y), float(z)), (a, b, c, d, e, f, g, h, i))
    return Volume(array, grid, tuple(notes))


def _hounsfield(one: Slice, whole: Callable[[Path], Dataset | None]) -> np.ndarray:
    """Return the Hounsfield units (rows, columns) of a slice; padding is air.

    Raises:
        BadInput: the file is damaged, or compressed in a way that cannot be decoded.
    """
    try:
        dataset = whole(one.file)
        if dataset is None or "PixelData" not in dataset:
            raise BadInput(one.file, "no pixels in it", "copy the series again")
        check_decodable(dataset)
        stored, padding = stored_values(dataset, one.frame)
        rescale = functional_group(dataset, one.frame, "PixelValueTransformationSequence")
        hu = _rescaled(stored, rescale)
        if padding is not None:
            hu = np.where(padding, AIR, hu)
    except BadInput:
        raise
    except Exception as error:  # decoders fail on damaged files in more ways than they document
        raise BadInput(one.file, f"its pixels cannot be read ({first_line(error)})", "copy the series again") from None
    if hu.shape != one.shape:
        raise BadInput(one.file, f"{hu.shape} pixels, but its header says {one.shape}", "copy the series again")
    return hu


def _rescaled(stored: np.ndarray, rescale: Dataset) -> np.ndarray:
    """Return the Hounsfield units of stored values (rows, columns), as integers where slope and intercept are."""
    slope, intercept = rescale.get("RescaleSlope"), rescale.get("RescaleIntercept")
    integer = slope in (None, 1) and (intercept is None or float(intercept).is_integer())
    if integer and not rescale.get("ModalityLUTSequence"):
        return stored + np.int32(intercept or 0)
    hu: np.ndarray = apply_modality_lut(stored, rescale)
    return hu


def _fits(values: np.ndarray) -> bool:
    """Return whether values are integers that int16 can hold."""
    inside = bool(values.min() >= -32768 and values.max() <= 32767)
    return inside and (values.dtype.kind in "iu" or bool(np.array_equal(values, np.rint(values))))
