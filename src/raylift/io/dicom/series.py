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
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut

from raylift.errors import BadInput
from raylift.geometry import MOST_VOXELS, VolumeGrid
from raylift.images.volume import AIR, Volume
from raylift.io.dicom.files import first_line, read_dicom_file
from raylift.io.dicom.pixels import check_decodable, stored_values
from raylift.io.dicom.slices import PHASES, Slice, find_slices, functional_group

SAME_PLANE = 0.5  # degrees; slices of one volume may differ by so much, from rounded cosines
ROUNDED_MM = 0.2  # distance from the fitted line that rounded positions have; at most `ROUNDED_SHARE` of the spacing
ROUNDED_SHARE = 0.3
SHEARED_MM = 0.2  # displacement of the last slice against the first, across their normal, that is no rounding
STEEPEST = 45.0  # degrees; the gantry of a CT scanner tilts by 30 at most
# Slices are cut where tissue covers `TISSUE_SHARE` of an edge that moves by `CUTTING_MM`, in `CUT_SHARE` of them.
CUTTING_MM = 20.0
SOFT_TISSUE_HU = -100.0
TISSUE_SHARE = 0.15
CUT_SHARE = 0.1


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
    volume = _stack(path, slices, step)
    # What a step moves each slice by, within its plane.
    shift = slices[0].axes @ step
    if np.abs(shift).max() * (len(slices) - 1) > SHEARED_MM:
        angle = float(np.degrees(np.arctan2(np.linalg.norm(shift), volume.grid.spacing[2])))
        if angle > STEEPEST:
            raise BadInput(
                path, f"slices sheared by {angle:.0f}°", "no CT scanner tilts so far; export the series again"
            )
        _check_cut(path, volume, shift, angle)
        volume = _straightened(volume, shift)
        notes = [*notes, f"slices sheared by {angle:.1f}°, as by a tilted gantry: resampled to a box"]
    return Volume(volume.array, volume.grid, tuple(notes))


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
        found = " and ".join(f"{rows} × {columns} pixels ({count} slices)" for (rows, columns), count in shapes.items())
        raise BadInput(path, f"slices of {found}", "put those of each size in their own folder")
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


def _stack(path: Path, slices: Sequence[Slice], step: np.ndarray) -> Volume:
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
    return Volume(array, VolumeGrid(array.shape, spacing, (float(x), float(y), float(z)), (a, b, c, d, e, f, g, h, i)))


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
        hu: np.ndarray = apply_modality_lut(stored, rescale)
        if padding is not None:
            hu = np.where(padding, AIR, hu)
    except BadInput:
        raise
    except Exception as error:  # decoders fail on damaged files in more ways than they document
        raise BadInput(one.file, f"its pixels cannot be read ({first_line(error)})", "copy the series again") from None
    if hu.shape != one.shape:
        raise BadInput(one.file, f"{hu.shape} pixels, but its header says {one.shape}", "copy the series again")
    return hu


def _fits(values: np.ndarray) -> bool:
    """Return whether values are integers that int16 can hold."""
    inside = bool(values.min() >= -32768 and values.max() <= 32767)
    return inside and (values.dtype.kind in "iu" or bool(np.array_equal(values, np.rint(values))))


def _check_cut(path: Path, volume: Volume, shift: np.ndarray, angle: float) -> None:
    """Check that sheared slices do not leave the body on its way out of the field of view.

    Args:
        path: of the series.
        volume: see `_straightened`.
        shift: likewise.
        angle: of the shear, for the message.

    Raises:
        BadInput: soft tissue reaches an edge that the shear moves, in more than a tenth of the slices.
    """
    for axis in np.flatnonzero(np.abs(shift) * (len(volume.array) - 1) > CUTTING_MM):
        for edge in (0, -1):
            tissue = np.take(volume.array, edge, axis=2 - axis) > SOFT_TISSUE_HU
            if np.mean(tissue.mean(1) > TISSUE_SHARE) > CUT_SHARE:
                problem = f"slices sheared by {angle:.0f}° cut the body off"
                raise BadInput(path, problem, "export the series again, from the scanner's own images")


def _straightened(volume: Volume, shift: np.ndarray) -> Volume:
    """Return a sheared volume resampled to a box that holds all of it.

    Args:
        volume: the slices as if each lay straight above the one before.
        shift: what each slice is displaced by against the one before, in mm along (x, y) of the volume's axes.
    """
    depth, rows, columns = volume.array.shape
    ends = np.stack([np.zeros(2), shift * (depth - 1)]) / volume.grid.spacing[:2]
    low, high = np.floor(ends.min(0)).astype(int), np.ceil(ends.max(0)).astype(int)
    grid = volume.grid.part((int(low[0]), int(low[1]), 0), (columns + int(high[0]), rows + int(high[1]), depth))
    direction = np.reshape(volume.grid.direction, (3, 3))
    # A point of the box shows the value of the slice at its height, displaced back by that slice's shift.
    shear = np.eye(3)
    shear[:2, 2] = -shift / volume.grid.spacing[2]
    transform = sitk.AffineTransform(3)
    transform.SetMatrix((direction @ shear @ direction.T).ravel().tolist())
    transform.SetCenter(volume.grid.origin)
    reference = sitk.Image([int(n) for n in grid.shape[::-1]], sitk.sitkUInt8)
    reference.SetSpacing(grid.spacing)
    reference.SetOrigin(grid.origin)
    reference.SetDirection(grid.direction)
    image = sitk.Cast(volume.to_sitk(), sitk.sitkFloat32)
    resampled = sitk.Resample(image, reference, transform, sitk.sitkLinear, AIR, sitk.sitkFloat32)
    return Volume(sitk.GetArrayFromImage(resampled), grid)
