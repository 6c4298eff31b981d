"""The part of a DICOM radiograph behind a collimator or a display shutter (PS3.3 C.7.6.11 and C.8.7.3)."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from skimage.draw import polygon2mask


def open_part(dataset: Dataset) -> np.ndarray:
    """Return the mask (rows, columns) of the pixels that lie behind neither a collimator nor a display shutter."""
    opened = np.ones((dataset.Rows, dataset.Columns), bool)
    for kind in ("Collimator", "Shutter"):
        shapes = dataset.get(f"{kind}Shape") or []
        for shape in [shapes] if isinstance(shapes, str) else shapes:
            opened &= _opening(dataset, kind, str(shape))
    return opened


def _opening(dataset: Dataset, kind: str, shape: str) -> np.ndarray:
    """Return the mask of one opening, as its attributes give it in rows and columns counted from 1.

    Raises:
        ValueError: they do not.
    """
    rows, columns = np.mgrid[1 : dataset.Rows + 1, 1 : dataset.Columns + 1]
    if shape == "RECTANGULAR":
        left, right, upper, lower = (
            float(dataset[f"{kind}{edge}Edge"].value)
            for edge in ("LeftVertical", "RightVertical", "UpperHorizontal", "LowerHorizontal")
        )
        inside = (columns > left) & (columns < right) & (rows > upper) & (rows < lower)
    elif shape == "CIRCULAR":
        row, column = (float(value) for value in dataset[f"CenterOfCircular{kind}"].value)
        inside = np.hypot(rows - row, columns - column) <= float(dataset[f"RadiusOfCircular{kind}"].value)
    elif shape == "POLYGONAL":
        corners = np.reshape([float(value) for value in dataset[f"VerticesOfThePolygonal{kind}"].value], (-1, 2))
        inside = polygon2mask(rows.shape, corners - 1)
    else:
        raise ValueError(f"{kind}Shape is {shape}")
    opening: np.ndarray = inside
    return opening
