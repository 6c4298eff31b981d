"""Damage to DICOM files: cut short, bits flipped, blocks lost, attributes with values that they cannot have."""

import io
import os
import warnings
from collections.abc import Callable

import numpy as np
import pydicom
from pydicom.datadict import dictionary_VR, tag_for_keyword

from raylift.errors import BadInput

EXAMPLES = int(os.environ.get("RAYLIFT_EXAMPLES", "60"))  # malformed files of each test; 300 have been tried
WRONG = {
    "Rows": [0, 1, 65535], "Columns": [0, 3, 65535], "BitsAllocated": [0, 1, 7, 12, 32, 64], "BitsStored": [0, 17, 99],
    "HighBit": [0, 40, 65535], "PixelRepresentation": [2, 65535], "SamplesPerPixel": [0, 3, 4],
    "PhotometricInterpretation": ["RGB", "", "YBR_FULL"], "NumberOfFrames": ["0", "-1", "7", "100000"],
    "RescaleSlope": ["0", "1e30", "-1e12"], "RescaleIntercept": ["1e30", "-99999999"],
    "PixelSpacing": [["0", "0"], ["-1", "1"], ["1e9", "1e9"], ["1"]],
    "ImagerPixelSpacing": [["0", "1"], ["1e-9", "1e-9"]],
    "ImagePositionPatient": [["0", "0"], ["1e30", "0", "0"]], "ImageOrientationPatient": [["0"] * 6, ["1"] * 6, ["1"]],
    "SOPClassUID": ["1.2.3", ""], "Modality": ["MR", ""], "PixelData": [b"", b"\\0"], "WindowWidth": ["0", "-5"],
    "FieldOfViewOrigin": [[-5, -5], [1e9, 0]], "PatientOrientation": [["X", "Y"], ["L"]], "ShutterShape": ["STAR"],
}  # fmt: skip


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """A DICOM file's content, damaged in one of five ways."""
    kind = rng.integers(5)
    if kind == 0:
        return content[: rng.integers(1, len(content))]
    if kind == 4:
        return wrong_attribute(content, rng)
    array = np.frombuffer(content, np.uint8).copy()
    if kind == 1:
        for at in rng.integers(0, min(len(array), 1500), rng.integers(1, 12)):
            array[at] ^= 1 << rng.integers(8)
    elif kind == 2:
        start = int(rng.integers(len(array)))
        array[start : start + int(rng.integers(1, 200))] = rng.choice([0, 255])
    else:
        start = int(rng.integers(len(array)))
        array = np.delete(array, slice(start, start + int(rng.integers(1, 40))))
    return array.tobytes()


def wrong_attribute(content: bytes, rng: np.random.Generator) -> bytes:
    """A DICOM file with an attribute that it cannot have."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(io.BytesIO(content))
        keyword = str(rng.choice(list(WRONG)))
        value = WRONG[keyword][rng.integers(len(WRONG[keyword]))]
        tag = tag_for_keyword(keyword)
        assert tag is not None
        dataset.add_new(tag, "OW" if keyword == "PixelData" else dictionary_VR(tag), value)
        file = io.BytesIO()
        try:
            dataset.save_as(file)
        except (ValueError, TypeError, KeyError, OverflowError):  # not even pydicom writes it
            return content[:200]
    return file.getvalue()


def refusal(read: Callable[[], object]) -> str | None:
    """The message with which reading is refused; None where it is not."""
    try:
        read()
    except BadInput as error:
        return str(error)
    return None
