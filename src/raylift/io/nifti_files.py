"""Read volumes in NIfTI files, by NiBabel, and write them, by ITK.

ITK refuses forms that are rounded or sheared, takes a missing form for granted, and does not read NIfTI-2.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.affines import apply_affine
from nibabel.spatialimages import SpatialImage

from raylift.errors import BadInput
from raylift.geometry import MOST_VOXELS, VolumeGrid
from raylift.images.volume import Volume
from raylift.io.image_headers import check_nifti
from raylift.io.itk_files import write as write
from raylift.io.shear import straightened

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
UNITS_MM = {"mm": 1.0, "meter": 1000.0, "micron": 0.001, "unknown": 1.0}
ROUNDED_MM = 0.5  # displacement of a corner by which rounded forms may differ from perpendicular axes
DIFFERENT_MM = 1.0  # displacement of a corner from which the two forms of a file count as different
PERPENDICULAR = 1e-3  # cosine of an angle that counts as a right one


def read(path: Path) -> Volume:
    """Read a .nii or .nii.gz file, NIfTI-1 or NIfTI-2.

    The sform counts, or the qform without one. Rounded axes are made perpendicular, sheared ones are resampled.

    Returns:
        The volume in Hounsfield units, with the file's axes.

    Raises:
        BadInput: the file is damaged, not a scalar three-dimensional image, or has axes that are not perpendicular.
    """
    check_nifti(path)
    try:
        image = nibabel.load(path)
        assert isinstance(image, SpatialImage)
        shape = image.shape
        if math.prod(shape) > MOST_VOXELS:
            raise BadInput(path, f"{shape} voxels (x, y, z)", "give one scan")
        if len([n for n in shape[3:] if n > 1]) or len(shape) < 3 or image.get_data_dtype().names:
            raise BadInput(path, f"not a scalar 3D volume ({shape} voxels)", "export a single CT volume")
        array = np.asanyarray(image.dataobj).reshape(shape[:3])
        affine, notes = _world_affine(path, image)
    except BadInput:
        raise
    except (OSError, EOFError, ValueError, OverflowError, zlib.error, nibabel.spatialimages.HeaderDataError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInput(path, f"cannot be read ({reason})", "the file is damaged or cut short; copy it again") from None
    if array.dtype.kind not in "iuf":
        raise BadInput(path, f"voxels of type {array.dtype}", "export a single CT volume")
    array = array.astype(np.float32) if array.dtype == np.float16 else array
    array = np.ascontiguousarray(array.T, array.dtype.newbyteorder("="))
    return _place(path, array, affine, notes)


def _world_affine(path: Path, image: SpatialImage) -> tuple[np.ndarray, list[str]]:
    """Return the affine (4, 4) from a voxel index (x, y, z, 1) to its world position in mm (LPS), and notes on it.

    Raises:
        BadInput: the file has no usable affine.
    """
    header: Any = image.header
    sform, s_code = header.get_sform(coded=True)
    qform, q_code = header.get_qform(coded=True)
    notes = []
    if s_code == 0 and q_code == 0:
        notes.append("the file has neither sform nor qform: rows assumed to run to the patient's left")
    affine = np.asarray(image.affine, float)
    if s_code > 0 and q_code > 0:
        last = np.array(image.shape[:3]) - 1
        corners = np.stack(np.meshgrid(*[(0, n) for n in last], indexing="ij"), -1).reshape(-1, 3)
        off = np.linalg.norm(apply_affine(sform, corners) - apply_affine(qform, corners), axis=1)
        if off.max() > DIFFERENT_MM:
            notes.append(f"the file's sform and qform differ by up to {off.max():.0f} mm: the sform is used")
    unit = header.get_xyzt_units()[0]
    if unit not in UNITS_MM:
        raise BadInput(path, f"lengths in '{unit}'", "save it again, with lengths in mm")
    affine = RAS_TO_LPS @ affine
    affine[:3] *= UNITS_MM[unit]
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise BadInput(path, "its voxels have no volume", "save it again with its spacing")
    return affine, notes


def _place(path: Path, array: np.ndarray, affine: np.ndarray, notes: list[str]) -> Volume:
    """Return an array (z, y, x) as a volume at the place that an affine says.

    Raises:
        BadInput: the axes are not at right angles, and not only slices displaced along a line.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    left, _, right = np.linalg.svd(affine[:3, :3] / spacing)
    perpendicular = left @ right  # the nearest perpendicular axes
    half = spacing * (np.array(array.shape[::-1]) - 1) / 2
    middle = affine[:3, 3] + affine[:3, :3] @ (half / spacing)
    off = np.abs(perpendicular - affine[:3, :3] / spacing) @ half
    if np.linalg.norm(off) <= ROUNDED_MM:
        return Volume(array, _grid(array, spacing, middle - perpendicular @ half, perpendicular), tuple(notes))
    axes = affine[:3, :3] / spacing
    for across in (2, 1, 0):  # slices are stacked along one of the axes, mostly the last
        x, y = (axis for axis in range(3) if axis != across)
        if abs(axes[:, x] @ axes[:, y]) > PERPENDICULAR:
            continue
        normal = np.cross(axes[:, x], axes[:, y])
        normal *= np.sign(normal @ axes[:, across])
        slices = np.ascontiguousarray(np.moveaxis(array, 2 - across, 0))
        step = affine[:3, across]
        sizes = np.array([spacing[x], spacing[y], normal @ step])
        grid = _grid(slices, sizes, affine[:3, 3], np.stack([axes[:, x], axes[:, y], normal], 1))
        return straightened(path, Volume(slices, grid, tuple(notes)), np.array([axes[:, x] @ step, axes[:, y] @ step]))
    raise BadInput(path, "its axes are not at right angles", "resample it to a straight grid")


def _grid(array: np.ndarray, spacing: np.ndarray, origin: np.ndarray, axes: np.ndarray) -> VolumeGrid:
    """Return the grid of an array (z, y, x) with the columns of `axes` (3, 3) as its directions."""
    sx, sy, sz = (float(value) for value in spacing)
    ox, oy, oz = (float(value) for value in origin)
    a, b, c, d, e, f, g, h, i = (float(value) for value in axes.ravel())
    return VolumeGrid(array.shape, (sx, sy, sz), (ox, oy, oz), (a, b, c, d, e, f, g, h, i))
