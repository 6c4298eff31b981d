"""What the attributes of a DICOM radiograph say of its pixels, against the same radiograph written plainly."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from radiograph_files import grey, write_dicom
from raylift.errors import BadInput
from raylift.geometry import Geometry, View
from raylift.images.xray_set import XraySet
from raylift.radiographs import read_radiograph
from raylift.radiographs.intake import read_radiographs

LEVELS = grey(16) // 16  # 12 bits
RAW = {
    "PresentationIntentType": "FOR PROCESSING",
    "PixelIntensityRelationship": "LIN",
    "PixelIntensityRelationshipSign": 1,
}
OUTSIDE = np.hypot(*(np.mgrid[:96, :96] - 47.5)) > 46


def image(folder: Path, pixels: np.ndarray, **attributes: Any) -> np.ndarray:
    return read_radiograph(write_dicom(folder / "x.dcm", pixels, **attributes)).image


@pytest.mark.parametrize(("along_row", "along_column", "store"), [
    ("L", "F", lambda x: x), ("R", "F", np.fliplr), ("L", "H", np.flipud), ("R", "H", lambda x: x[::-1, ::-1]),
    ("F", "L", lambda x: x.T), ("F", "R", lambda x: x.T[::-1]), ("H", "L", lambda x: x.T[:, ::-1]),
    ("H", "R", lambda x: x.T[::-1, ::-1]),
])  # fmt: skip
def test_any_orientation_is_turned_for_reading(tmp_path: Path, along_row: str, along_column: str, store: Any) -> None:
    plain = image(tmp_path, LEVELS)
    stored = np.ascontiguousarray(store(LEVELS))
    assert np.array_equal(image(tmp_path, stored, PatientOrientation=[along_row, along_column]), plain)


@pytest.mark.parametrize(
    ("value", "bits", "inverted"), [(0, 12, False), (4095, 12, False), (0, 12, True), (65535, 16, False)]
)
def test_padding_takes_no_part(tmp_path: Path, value: int, bits: int, inverted: bool) -> None:
    def padded(pixels: np.ndarray, fill: float) -> np.ndarray:
        return np.where(OUTSIDE, fill, pixels)

    kind = {"PhotometricInterpretation": "MONOCHROME1"} if inverted else {}
    levels = np.clip(LEVELS, 200, 3900)  # no pixel has the padding's value
    pixels = 4095 - levels if inverted else levels
    air = pixels[~OUTSIDE].max() if inverted else pixels[~OUTSIDE].min()
    plain = image(tmp_path, padded(pixels, air), **kind)
    found = image(tmp_path, padded(pixels, value), PixelPaddingValue=value, BitsStored=bits, HighBit=bits - 1, **kind)
    np.testing.assert_allclose(found[~OUTSIDE], plain[~OUTSIDE], atol=1e-5)
    assert (found[OUTSIDE] == found.min()).all()


@pytest.mark.parametrize("value", [0, 65535])
def test_unexposed_padding_of_raw_values_is_air(tmp_path: Path, value: int) -> None:
    raw = np.rint(50000 * np.exp(-LEVELS.astype(float) / 1500)).astype(np.uint16)
    sixteen = {"BitsStored": 16, "HighBit": 15, **RAW}
    plain = image(tmp_path, raw, **sixteen)
    found = image(tmp_path, np.where(OUTSIDE, value, raw), PixelPaddingValue=value, **sixteen)
    assert (found[OUTSIDE] == 0).all()
    np.testing.assert_allclose(found[~OUTSIDE], plain[~OUTSIDE], atol=0.05)


@pytest.mark.parametrize(("shift", "overlay"), [(0, 0x8000), (4, 0), (4, 0x000F), (2, 0xC003)])
def test_bits_beside_the_stored_ones(tmp_path: Path, shift: int, overlay: int) -> None:
    plain = image(tmp_path, LEVELS)
    marks = np.where(np.arange(LEVELS.size).reshape(LEVELS.shape) % 3, overlay, 0)
    stored = (LEVELS.astype(int) << shift) | marks
    assert np.array_equal(image(tmp_path, stored, HighBit=11 + shift), plain)


def test_pixels_that_are_not_square_are_refused_whichever_attribute_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="pixels of 1 × 2; resample it to square pixels"):
        image(tmp_path, LEVELS, ImagerPixelSpacing=None, PixelAspectRatio=["1", "2"])
    image(tmp_path, LEVELS, ImagerPixelSpacing=None, PixelAspectRatio=["1", "1"])


def test_a_palette_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="pixels that are PALETTE COLOR, not grey"):
        image(tmp_path, LEVELS, PhotometricInterpretation="PALETTE COLOR")


def test_without_a_preamble(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "x.dcm", LEVELS)
    plain = read_radiograph(path).image
    content = path.read_bytes()
    path.write_bytes(content[132:])
    assert np.array_equal(read_radiograph(path).image, plain)


# --- Geometry -------------------------------------------------------------------------------------------------------

STAND = Geometry(1600.0, 1800.0, 430.0, 96)


def xrays(folder: Path, **attributes: Any) -> XraySet:
    files = [
        write_dicom(folder / f"{name}.dcm", LEVELS, ViewPosition=name, Modality="DX", **attributes)
        for name in ("PA", "LL")
    ]
    return read_radiographs(files, None, STAND, geometry_from_files=True)


@pytest.mark.parametrize("to_patient", [None, 1480, 1746])
def test_the_axis_of_a_stand_is_estimated(tmp_path: Path, to_patient: float | None) -> None:
    found = xrays(tmp_path, DistanceSourceToDetector=1500, DistanceSourceToPatient=to_patient)
    assert (found.geometry.sad, found.geometry.sdd) == (1300, 1500)
    assert "with the files' distance to the detector" in found.notes[-1]


def test_a_spacing_in_the_patient_is_magnified_to_the_detector(tmp_path: Path) -> None:
    in_patient = {"ImagerPixelSpacing": None, "PixelSpacingCalibrationType": "FIDUCIAL"}
    on_detector = xrays(tmp_path, ImagerPixelSpacing=[4.5, 4.5])
    found = xrays(tmp_path, PixelSpacing=[4.0, 4.0], **in_patient)  # magnified by 1800 / 1600
    np.testing.assert_allclose(found.images, on_detector.images)


def test_a_field_of_view_off_the_centre_is_noted(tmp_path: Path) -> None:
    off, centred = (
        read_radiograph(write_dicom(tmp_path / "x.dcm", LEVELS, FieldOfViewOrigin=origin)).note
        for origin in ([30, 0], [0, 0])
    )
    assert "FieldOfViewOrigin not used: taken to be centred on the detector" in off
    assert "FieldOfViewOrigin" not in centred


def test_two_files_of_one_view_are_noted(tmp_path: Path) -> None:
    files = [write_dicom(tmp_path / f"{k}.dcm", LEVELS, ViewPosition="PA") for k in range(2)]
    assert (
        "several X-rays of one view: give --views where one of them is another"
        in read_radiographs(files, None, STAND).notes
    )
    found = read_radiographs(files, [View.parse("pa"), View.parse("lateral-left")], STAND)
    assert "view lateral-left as given, though the file declares pa" in found.notes[1]


# --- Pictures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [True, False], ids=["picture first", "thumbnail first"])
def test_a_thumbnail_in_a_tiff_is_left_out(tmp_path: Path, first: bool) -> None:
    picture = Image.fromarray(grey(16))
    Image.fromarray(grey(16)).save(tmp_path / "plain.tif")
    thumbnail = Image.fromarray(grey(8)).resize((40, 40))
    pages = (picture, thumbnail) if first else (thumbnail, picture)
    pages[0].save(tmp_path / "both.tif", save_all=True, append_images=[pages[1]])
    assert np.array_equal(read_radiograph(tmp_path / "both.tif").image, read_radiograph(tmp_path / "plain.tif").image)
