"""A radiograph written in any way reads as the X-ray that it is: every pixel at its place, with its value."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from compression import LOSSLESS, compress
from malformed import EXAMPLES
from radiograph_files import chest, write_dicom
from raylift.geometry import Geometry
from raylift.radiographs.intake import read_radiographs

EDGE, AIR = 96, 16  # pixels of the detector, and of the air around the chest
DETECTOR = Geometry.preset("chest-stand", EDGE)
LINE_INTEGRALS = np.pad(chest(EDGE - 2 * AIR, EDGE - 2 * AIR), AIR)
PLAIN = {
    syntax.name: syntax
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
}


@dataclass(frozen=True)
class Way:
    """A way to write a radiograph.

    Args:
        raw: the values are raw detector values, not grey levels for display.
        orientation: DICOM's PatientOrientation.
        quarters: quarter turns, clockwise, of the field of view before it was stored.
        flipped: it was flipped left to right after them.
        cut: rows and columns of the detector that were cut off: at the top, bottom, left and right.
        padded: how many rows at the top of what is left are padding.
        padding: value of the padding, the lowest or the highest.
        inverted: MONOCHROME1 instead of MONOCHROME2.
        bits: stored bits.
        shift: bits below the stored ones, in files that are not compressed.
        signed: values are.
        intercept: of the rescale.
        syntax: name of the transfer syntax.
    """

    raw: bool
    orientation: str
    quarters: int
    flipped: bool
    cut: tuple[int, int, int, int]
    padded: int
    padding: str
    inverted: bool
    bits: int
    shift: int
    signed: bool
    intercept: float
    syntax: str


def ways() -> st.SearchStrategy[Way]:
    rows = st.integers(0, AIR // 4).map(lambda half: 2 * half)  # an image lies on whole pixels
    return st.builds(
        Way,
        st.booleans(),
        st.sampled_from(["LF", "RF", "LH", "RH", "FL", "FR", "HL", "HR"]),
        st.integers(0, 3),
        st.booleans(),
        st.tuples(rows, rows, rows, rows),
        st.sampled_from([0, 0, 6]),
        st.sampled_from(["lowest", "highest"]),
        st.booleans(),
        st.integers(10, 16),
        st.integers(0, 6),
        st.booleans(),
        st.sampled_from([0.0, -1024.0, 100.0]),
        st.sampled_from([*LOSSLESS, *PLAIN]),
    )


def as_stored(detector: np.ndarray, way: Way) -> np.ndarray:
    """Turn an image as the detector saw it as it is stored."""
    turned = np.rot90(detector, -way.quarters)
    return turned[:, ::-1] if way.flipped else turned


def as_seen(reading: np.ndarray, way: Way) -> np.ndarray:
    """Turn an image for reading as the detector saw it."""
    along_row, along_column = way.orientation
    stored = reading.T if along_row in "FH" else reading
    stored = stored[:, ::-1] if along_row in "RH" else stored
    stored = stored[::-1] if along_column in "RH" else stored
    return np.rot90(stored[:, ::-1] if way.flipped else stored, way.quarters)


def as_read(detector: np.ndarray, way: Way) -> np.ndarray:
    """Turn an image as the detector saw it for reading: the opposite of `as_seen`."""
    numbers = as_seen(np.arange(EDGE**2).reshape(EDGE, EDGE), way)
    reading = np.empty(EDGE**2, detector.dtype)
    reading[numbers.ravel()] = detector.ravel()
    return reading.reshape(EDGE, EDGE)


def read(way: Way) -> tuple[np.ndarray, np.ndarray]:
    """Write the chest, and return the image that is read on the detector, and the mask of what it shows."""
    size = 2 ** (way.bits - way.signed)
    if way.raw:
        levels = np.exp(-LINE_INTEGRALS) * 0.95 + 0.02
    else:
        levels = 0.02 + 0.96 * (LINE_INTEGRALS / LINE_INTEGRALS.max()) ** 0.8
        levels = 1 - levels if way.inverted else levels
    values = np.rint(levels * (size - 1)).astype(int)
    values -= size if way.signed and not way.raw else 0
    top, bottom, left, right = way.cut
    box = np.s_[top : EDGE - bottom, left : EDGE - right]
    part, shown = as_seen(values, way)[box], np.zeros((EDGE, EDGE), bool)
    shown[box] = True
    attributes: dict[str, Any] = {}
    if way.padded:
        lowest, highest = (-size, size - 1) if way.signed else (0, size - 1)
        value = lowest if way.padding == "lowest" else highest
        part = part.copy()
        part[: way.padded], shown[top : top + way.padded] = value, False
        attributes["PixelPaddingValue"] = value
    stored = as_stored(part, way) & (2**way.bits - 1)
    if way.signed and way.syntax in LOSSLESS:  # GDCM extends the sign only of whole words
        stored = stored - ((stored >> (way.bits - 1)) << way.bits) & 0xFFFF
    shift = 0 if way.syntax in LOSSLESS else min(way.shift, 16 - way.bits)
    with tempfile.TemporaryDirectory() as folder:
        path = write_dicom(
            Path(folder) / "x.dcm",
            stored << shift,
            ImagerPixelSpacing=[DETECTOR.detector_mm / EDGE] * 2,
            ViewPosition="PA",
            PresentationIntentType="FOR PROCESSING" if way.raw else "FOR PRESENTATION",
            PixelIntensityRelationship="LIN",
            PixelIntensityRelationshipSign=1,
            PhotometricInterpretation="MONOCHROME1" if way.inverted else "MONOCHROME2",
            BitsStored=way.bits,
            HighBit=way.bits + shift - 1,
            PixelRepresentation=int(way.signed),
            RescaleIntercept=way.intercept,
            RescaleSlope=1,
            PatientOrientation=list(way.orientation),
            FieldOfViewOrigin=[top, left],
            FieldOfViewRotation=90 * way.quarters,
            FieldOfViewHorizontalFlip="YES" if way.flipped else "NO",
            **attributes,
        )
        if way.syntax in LOSSLESS:
            compress(path, LOSSLESS[way.syntax])
        else:
            transcode(path, way.syntax)
        image = read_radiographs([path], None, DETECTOR).images[0]
    return image, as_read(shown, way)


def transcode(path: Path, syntax: str) -> None:
    """Write a file anew in another transfer syntax that does not compress pixels."""
    dataset = dcmread(path)
    uid = dataset.file_meta.TransferSyntaxUID = PLAIN[syntax]
    if uid == ExplicitVRBigEndian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    implicit, little = uid == ImplicitVRLittleEndian, uid != ExplicitVRBigEndian
    dcmwrite(path, dataset, implicit_vr=implicit, little_endian=little, force_encoding=True)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=EXAMPLES < 100)
@given(ways())
def test_a_radiograph_written_in_any_way(way: Way) -> None:
    image, shown = read(way)
    assert image.shape == (EDGE, EDGE)
    # Values are compared where they are proportional to what is stored, to within two of its steps.
    if way.raw:
        true = np.exp(-LINE_INTEGRALS) * 0.95 + 0.02
        np.testing.assert_allclose(
            np.exp(-image[shown]), true[shown] / true.max(), atol=4 / 2 ** (way.bits - way.signed)
        )
    else:
        rows, columns = (np.flatnonzero(shown.any(axis)) for axis in (1, 0))
        cut = (rows[0], EDGE - 1 - rows[-1], columns[0], EDGE - 1 - columns[-1])
        plain = replace(way, orientation="LF", quarters=0, flipped=False, cut=cut, padded=0, inverted=False, bits=16,
                        shift=0, signed=False, syntax=ExplicitVRLittleEndian.name)  # fmt: skip
        np.testing.assert_allclose(image[shown], read(plain)[0][shown], atol=80 / 2 ** (way.bits - way.signed))
