"""Read and write volumes as NumPy arrays, with their grid in a JSON file of the same name."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from raylift.errors import BadInput
from raylift.geometry import VolumeGrid
from raylift.images.volume import Volume
from raylift.storage.atomic import write_json
from raylift.storage.records import read_json

# Types of array that SimpleITK supports too.
ARRAY_DTYPES = (*(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)), "float32", "float64")


def read(path: Path) -> Volume:
    """Read an array (z, y, x), whose grid is in the .json file of the same name (see `VolumeGrid.to_dict`).

    Returns:
        The volume in Hounsfield units, with the array's type.

    Raises:
        BadInput: either file is missing or damaged, or the two do not match.
    """
    sidecar = path.with_suffix(".json")
    if not sidecar.exists():
        raise BadInput(path, "an array without a grid", f"put its grid beside it in {sidecar.name}")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # a header may announce more than the file holds
    except (ValueError, OSError, EOFError) as error:
        raise BadInput(path, f"not a NumPy array of numbers ({error})", "save it with numpy.save") from None
    try:
        grid = VolumeGrid.from_dict(read_json(sidecar)["grid"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BadInput(sidecar, f"not a grid ({error})", 'see VolumeGrid.to_dict under "grid"') from None
    if array.dtype.name not in ARRAY_DTYPES:
        raise BadInput(path, f"an array of {array.dtype}", "save it as int16 or float32")
    if array.shape != grid.shape:
        raise BadInput(path, f"an array of shape {array.shape}, but its grid has {grid.shape}", "correct the grid")
    return Volume(np.array(array, array.dtype.newbyteorder("=")), grid)


def write(volume: Volume, path: Path) -> None:
    """Write an array and, beside it, its grid."""
    np.save(path, volume.array)
    write_json({"grid": volume.grid.to_dict(), "unit": "HU", "axes": "z, y, x"}, path.with_suffix(".json"))
