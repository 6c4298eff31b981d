"""Small DICOM CT series for tests."""

from collections.abc import Sequence

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def ct_slice(
    stored: np.ndarray, position: Sequence[float], spacing: Sequence[float], series: str, **attributes: object
) -> FileDataset:
    """One axial CT slice; `save_as` writes it.

    Args:
        stored: pixels (rows, columns) before the rescale, which is to HU as they are, unless `attributes` say else.
        position: of the first pixel's centre (x, y, z), mm.
        spacing: (x, y, z), mm.
        series: UID.
        attributes: by DICOM keyword, over the usual ones.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dx, dy, dz = spacing
    values = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "SeriesInstanceUID": series,
        "StudyInstanceUID": series,
        "Modality": "CT",
        "ImagePositionPatient": [f"{value:.4f}" for value in position],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [dy, dx],
        "SliceThickness": dz,
        "Rows": stored.shape[0],
        "Columns": stored.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
        **attributes,
    }
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset.PixelData = np.ascontiguousarray(stored, "<i2").tobytes()
    return dataset
