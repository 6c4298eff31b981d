"""Pictures of volumes and X-rays, always upright and with the patient's sides marked.

Every picture is oriented as radiologists read it: superior at the top (anterior in axial planes), the patient's
left on the right of axial and coronal pictures, the patient's front on the left of sagittal ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raylift.geometry import View
from raylift.images.volume import Volume


@dataclass(frozen=True)
class Picture:
    """A 2D array (rows, columns) ready to be shown.

    Args:
        array: the values; row 0 is the top.
        size: height and width in mm.
        sides: the patient's sides at the left and right edge: R(ight), L(eft), A(nterior), P(osterior), or "" if
            unknown.
    """

    array: np.ndarray
    size: tuple[float, float]
    sides: tuple[str, str] = ("", "")


def planes(volume: Volume) -> dict[str, Picture]:
    """Cut the middle planes out of a volume, oriented for reading.

    Args:
        volume: in any orientation; its axes are first permuted and flipped to the nearest anatomical ones.

    Returns:
        "axial" (y, x), "coronal" (z from the top down, x) and "sagittal" (z from the top down, y) through
        voxel n // 2 of the remaining axis, with the volume's values.
    """
    volume = volume.axis_aligned()
    z, y, x = (n // 2 for n in volume.grid.shape)
    array = volume.array
    return _oriented(volume, axial=array[z], coronal=array[::-1, y], sagittal=array[::-1, :, x])


def projections(volume: Volume) -> dict[str, Picture]:
    """Compute the means of a volume along the patient's axes (parallel rays), oriented for reading.

    Args:
        volume: in any orientation, as in `planes`; a scanner's padding below -1000 HU should have been clipped.

    Returns:
        "ap" (z from the top down, x), the mean along y, and "lateral" (z from the top down, y), the mean
        along x, in the volume's unit.
    """
    volume = volume.axis_aligned()
    array = volume.array[::-1]
    return _oriented(volume, ap=array.mean(axis=1), lateral=array.mean(axis=2))


def _oriented(volume: Volume, **arrays: np.ndarray) -> dict[str, Picture]:
    x, y, z = np.multiply(volume.grid.spacing, volume.grid.shape[::-1])
    sizes = {"axial": (y, x), "coronal": (z, x), "ap": (z, x), "sagittal": (z, y), "lateral": (z, y)}
    return {
        name: Picture(array, sizes[name], ("A", "P") if name in ("sagittal", "lateral") else ("R", "L"))
        for name, array in arrays.items()
    }


def xray_picture(image: np.ndarray, name: str = "") -> Picture:
    """Return an X-ray as a picture, with its sides marked if the view's name determines them.

    Args:
        image: line integrals (rows, columns), row 0 superior, square pixels.
        name: a name or angle that `View.parse` accepts; another name, or an oblique angle, leaves the sides unmarked.
    """
    try:
        u = View.parse(name).u
    except ValueError:
        u = np.zeros(3)
    sides = {(1, 0): ("R", "L"), (-1, 0): ("L", "R"), (0, 1): ("A", "P"), (0, -1): ("P", "A")}
    height, width = image.shape
    return Picture(image, (height, width), sides.get((round(u[0], 3), round(u[1], 3)), ("", "")))
