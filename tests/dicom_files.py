"""Small DICOM CT series for tests."""

from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid


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


def item(**values: object) -> Dataset:
    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def enhanced_ct(planes: Sequence[FileDataset]) -> FileDataset:
    """The slices as the frames of one Enhanced CT image."""
    whole = ct_slice(np.zeros((planes[0].Rows, planes[0].Columns), np.int16), (0, 0, 0), (1, 1, 1), "1.2.3")
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    whole.SOPInstanceUID = whole.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    whole.PixelRepresentation = planes[0].PixelRepresentation
    if "PixelPaddingValue" in planes[0]:
        whole.add(planes[0]["PixelPaddingValue"])
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope",
                    "RescaleIntercept", "SliceThickness"):  # fmt: skip
        del whole[keyword]
    whole.NumberOfFrames = len(planes)
    whole.file_meta.TransferSyntaxUID = planes[0].file_meta.TransferSyntaxUID
    pixels = [plane.PixelData for plane in planes]
    if whole.file_meta.TransferSyntaxUID.is_compressed:
        whole.PixelData = encapsulate([frame for each in pixels for frame in generate_frames(each, number_of_frames=1)])
        whole["PixelData"].is_undefined_length = True
    else:
        whole.PixelData = b"".join(pixels)
    whole.SharedFunctionalGroupsSequence = DicomSequence([
        item(PixelMeasuresSequence=DicomSequence([item(PixelSpacing=planes[0].PixelSpacing)]))
    ])  # fmt: skip
    whole.PerFrameFunctionalGroupsSequence = DicomSequence([
        item(
            PlanePositionSequence=DicomSequence([item(ImagePositionPatient=plane.ImagePositionPatient)]),
            PlaneOrientationSequence=DicomSequence([item(ImageOrientationPatient=plane.ImageOrientationPatient)]),
            PixelValueTransformationSequence=DicomSequence([
                item(RescaleSlope=plane.RescaleSlope, RescaleIntercept=plane.RescaleIntercept, RescaleType="HU")
            ]),
        )
        for plane in planes
    ])  # fmt: skip
    return whole
