"""Radiographs for tests: a chest without symmetry, as line integrals, as a display shows it, and in DICOM files."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid


def chest(rows: int = 96, columns: int = 96) -> np.ndarray:
    """Line integrals (rows, columns) of two unlike lungs in a body that widens downwards."""
    z, x = np.mgrid[0 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    body = np.maximum(1 - (x / (0.8 + 0.1 * z)) ** 2, 0) ** 0.5 * (4 + z)
    for side, depth in ((-0.4, 2.5), (0.42, 2.0)):
        body -= depth * np.maximum(1 - ((x - side) / 0.28) ** 2 - ((z - 0.45) / 0.35) ** 2, 0) ** 0.5
    return np.maximum(body, 0).astype(np.float32)


def grey(bits: int, rows: int = 96, columns: int = 96) -> np.ndarray:
    """The chest as a display shows it: bone bright, full range, a gamma that is not 1."""
    levels = (chest(rows, columns) / chest(rows, columns).max()) ** 0.8 * (2**bits - 1)
    return np.rint(levels).astype(np.uint8 if bits == 8 else np.uint16)


def write_dicom(path: Path, pixels: np.ndarray, **attributes: Any) -> Path:
    """A radiograph of 12-bit pixels; the attributes replace or add to its own, or take them away if None."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    values: dict[str, Any] = {
        "Modality": "CR",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "ImagerPixelSpacing": [0.2, 0.2],
        "PixelData": pixels.astype(np.uint16).tobytes(),
    } | attributes
    for name, value in values.items():
        if value is not None:
            setattr(dataset, name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(path)
    return path
