"""What the attributes of a DICOM radiograph say of its pixels, against the same radiograph written plainly."""

from collections.abc import Callable
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
    kind = {"PhotometricInterpretation": "MONOCHROME1"} if inverted else {}
    levels = np.clip(LEVELS, 200, 3900)  # no pixel has the padding's value
    pixels = 4095 - levels if inverted else levels
    padded = np.pad(pixels[:, 20:85], ((0, 0), (20, 11)), constant_values=value)
    found = image(tmp_path, padded, PixelPaddingValue=value, BitsStored=bits, HighBit=bits - 1, **kind)
    cut_off = image(tmp_path, pixels[:, 20:85], **kind)[:, 15 : 15 + 65]  # without the columns that square it
    np.testing.assert_allclose(found, np.pad(cut_off, ((0, 0), (20, 11)), mode="edge"), atol=1e-5)


def check_continued(image: np.ndarray) -> None:
    """Check that each pixel outside has the value of a nearest one inside, found by trying all."""
    inside = np.argwhere(~OUTSIDE)
    for pixel in np.argwhere(OUTSIDE)[::50]:
        distance = ((inside - pixel) ** 2).sum(1)
        assert image[tuple(pixel)] in image[tuple(inside[distance == distance.min()].T)]


@pytest.mark.parametrize("value", [0, 65535])
def test_padding_of_raw_values_takes_no_part(tmp_path: Path, value: int) -> None:
    raw = np.rint(50000 * np.exp(-LEVELS.astype(float) / 1500)).astype(np.uint16)
    sixteen = {"BitsStored": 16, "HighBit": 15, **RAW}
    plain = image(tmp_path, raw, **sixteen)
    found = image(tmp_path, np.where(OUTSIDE, value, raw), PixelPaddingValue=value, **sixteen)
    np.testing.assert_allclose(found[~OUTSIDE], plain[~OUTSIDE], atol=0.05)
    check_continued(found)


@pytest.mark.parametrize("kind", ["Collimator", "Shutter"])
@pytest.mark.parametrize("polygon", [False, True])
def test_what_lies_behind_a_shutter_takes_no_part(tmp_path: Path, kind: str, polygon: bool) -> None:
    # Open are the columns 21 to 85, counted from 1, and all rows; a letter lies behind the shutter.
    edges = {"LeftVertical": 20, "RightVertical": 86, "UpperHorizontal": 0, "LowerHorizontal": 97}
    opening: dict[str, Any] = {f"{kind}Shape": "RECTANGULAR"} | {f"{kind}{k}Edge": v for k, v in edges.items()}
    if polygon:
        corners = [0.5, 20.5, 0.5, 85.5, 96.5, 85.5, 96.5, 20.5]
        opening = {f"{kind}Shape": "POLYGONAL", f"VerticesOfThePolygonal{kind}": corners}
    pixels = LEVELS.copy()
    pixels[10:20, 2:12] = 4095
    found = image(tmp_path, pixels, **opening)
    cut_off = image(tmp_path, LEVELS[:, 20:85])[:, 15 : 15 + 65]
    np.testing.assert_allclose(found, np.pad(cut_off, ((0, 0), (20, 11)), mode="edge"), atol=1e-5)


def test_a_round_shutter(tmp_path: Path) -> None:
    circle = {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [48.5, 48.5], "RadiusOfCircularShutter": 46}
    pixels = np.where(OUTSIDE, 4095, LEVELS)
    check_continued(image(tmp_path, pixels, **circle))
    with pytest.raises(BadInput, match="cannot be read"):
        image(tmp_path, pixels, ShutterShape="STAR")


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


# A detector of 96 × 96 elements of 4 mm, of which a part of 60 rows and 70 columns was stored.
TOP, LEFT, ROWS, COLUMNS = 20, 10, 60, 70
DETECTOR = Geometry(1600.0, 1800.0, 384.0, 96)
LINE_INTEGRALS = 5 * LEVELS / 4095
LINE_INTEGRALS[TOP : TOP + 6, LEFT : LEFT + 9] = 0  # the open field


def place(folder: Path, store: Callable[[np.ndarray], np.ndarray], **attributes: Any) -> tuple[np.ndarray, str]:
    """Write raw values of the part, as `store` turns them, and read them; return the image and its note."""
    raw = np.rint(60000 * np.exp(-LINE_INTEGRALS))
    part = np.ascontiguousarray(store(raw[TOP : TOP + ROWS, LEFT : LEFT + COLUMNS]))
    sixteen = {"BitsStored": 16, "HighBit": 15, "ImagerPixelSpacing": [4.0, 4.0], **RAW}
    file = write_dicom(folder / "x.dcm", part, ViewPosition="PA", **(sixteen | attributes))
    found = read_radiographs([file], None, DETECTOR)
    return found.images[0], found.notes[0]


def on_detector(store: Callable[[np.ndarray], np.ndarray] = np.asarray) -> np.ndarray:
    """The whole detector, turned by `store`; beside the part its outermost values go on."""
    margins = [(TOP, 96 - TOP - ROWS), (LEFT, 96 - LEFT - COLUMNS)]
    return store(np.pad(LINE_INTEGRALS[TOP : TOP + ROWS, LEFT : LEFT + COLUMNS], margins, mode="edge"))


@pytest.mark.parametrize("attributes", [
    {"FieldOfViewOrigin": [TOP, LEFT]},
    {"DetectorActiveOrigin": [TOP, LEFT]},
    {"FieldOfViewOrigin": [TOP, LEFT], "DetectorActiveOrigin": [1, 1]},  # both from the physical detector's corner
    {"FieldOfViewOrigin": [2 * TOP, 2 * LEFT], "DetectorElementSpacing": [2.0, 2.0]},  # binned
    {"FieldOfViewOrigin": [TOP + 4, LEFT + 2], "DetectorActiveDimensions": [416.0, 400.0]},  # a larger detector
    {"FieldOfViewOrigin": [TOP + 4, LEFT + 2], "PhysicalDetectorSize": [416.0, 400.0]},
], ids=str)  # fmt: skip
def test_an_image_is_placed_on_the_detector(tmp_path: Path, attributes: dict[str, Any]) -> None:
    image, note = place(tmp_path, np.asarray, **attributes)
    np.testing.assert_allclose(image, on_detector(), atol=0.01)
    assert "placed on the detector as the file declares: 8 mm below and 12 mm to the left of its middle" in note


@pytest.mark.parametrize(("rotation", "turn"), [
    (0, np.asarray), (90, lambda x: np.rot90(x, -1)), (180, lambda x: np.rot90(x, 2)), (270, np.rot90),
])  # fmt: skip
@pytest.mark.parametrize("flip", [False, True])
def test_a_turned_field_of_view_is_placed_before_it_is_turned(
    tmp_path: Path, rotation: int, turn: Callable[[np.ndarray], np.ndarray], flip: bool
) -> None:
    def store(pixels: np.ndarray) -> np.ndarray:
        return np.fliplr(turn(pixels)) if flip else turn(pixels)

    how = {"FieldOfViewRotation": rotation, "FieldOfViewHorizontalFlip": "YES" if flip else "NO"}
    image, _ = place(tmp_path, store, FieldOfViewOrigin=[TOP, LEFT], **how)
    np.testing.assert_allclose(image, on_detector(store), atol=0.01)


def test_a_placed_image_is_turned_for_reading_with_its_detector(tmp_path: Path) -> None:
    image, _ = place(tmp_path, np.asarray, FieldOfViewOrigin=[TOP, LEFT], PatientOrientation=["F", "R"])
    np.testing.assert_allclose(image, on_detector(lambda x: np.fliplr(x.T)), atol=0.01)


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    assert "taken to be centred on the detector" in place(tmp_path, np.asarray)[1]
    _, note = place(tmp_path, np.asarray, FieldOfViewOrigin=[60, 0], DetectorActiveDimensions=[384.0, 384.0])
    assert "FieldOfViewOrigin not used, since the image would lie beyond the detector" in note
    _, note = place(tmp_path, np.asarray, FieldOfViewOrigin=[TOP, LEFT], ImagerPixelSpacing=None)
    assert "FieldOfViewOrigin not used, since the file has no pixel spacing on the detector" in note
    with pytest.raises(BadInput, match="declares a place beyond a detector of 384 mm; correct its FieldOfViewOrigin"):
        place(tmp_path, np.asarray, FieldOfViewOrigin=[200, 0])


@pytest.mark.parametrize(("attributes", "note"), [
    ({"PixelSpacing": [0.1, 0.1]}, None),
    ({"PixelSpacing": [0.07, 0.07]}, "PixelSpacing 0.07 mm disagrees with ImagerPixelSpacing 0.2 mm, which is used"),
    ({"FieldOfViewDimensions": [19, 19]}, None),
    ({"FieldOfViewDimensions": [430, 430]}, "FieldOfViewDimensions 430 × 430 mm disagree with the pixel spacing"),
])  # fmt: skip
def test_a_size_said_twice_and_differently_is_noted(
    tmp_path: Path, attributes: dict[str, Any], note: str | None
) -> None:
    found = read_radiograph(write_dicom(tmp_path / "x.dcm", LEVELS, **attributes)).note
    assert "disagree" not in found if note is None else note in found


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
