"""X-ray images of every format come out as the same line integrals, and wrong ones as one line."""

import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG2MPML,
)

from radiograph_files import chest, grey, write_dicom
from raylift.errors import BadInput
from raylift.geometry import View
from raylift.radiographs import read_radiograph
from raylift.radiographs.tone import FRONTAL, LATERAL, LOWEST, PERCENTILES
from repository import SHARED


def write_sitk(path: Path, array: np.ndarray, spacing: tuple[float, ...] = (0.5, 0.5)) -> Path:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((*spacing, *[1.0] * (image.GetDimension() - 2)))
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nrrd", ".nii", ".nii.gz"])
@pytest.mark.parametrize("slices", [0, 1])
def test_line_integrals_are_taken_as_they_are(tmp_path: Path, ending: str, slices: int) -> None:
    array = chest()[None] if slices else chest()
    radiograph = read_radiograph(write_sitk(tmp_path / f"xray{ending}", array))
    np.testing.assert_array_equal(radiograph.image, chest())
    assert radiograph.image.dtype == np.float32
    assert radiograph.pixel_mm == pytest.approx(0.5)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8"])
def test_numpy_line_integrals(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "xray.npy", chest().astype(dtype))
    radiograph = read_radiograph(str(tmp_path / "xray.npy"))
    np.testing.assert_array_equal(radiograph.image, chest())
    assert radiograph.image.dtype == np.dtype(np.float32)
    assert radiograph.pixel_mm is None


def test_tiny_negative_line_integrals_become_zero(tmp_path: Path) -> None:
    np.save(tmp_path / "xray.npy", chest() - 0.01)
    image = read_radiograph(tmp_path / "xray.npy").image
    assert image.min() == 0
    np.testing.assert_allclose(image, chest(), atol=0.0101)


def as_rgb(array: np.ndarray) -> Image.Image:
    return Image.fromarray(np.stack([array] * 3, -1))


def as_rgba(array: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack([array] * 3 + [np.arange(array.size).reshape(array.shape).astype(np.uint8)]))


PICTURES: dict[str, Callable[[Path], None]] = {
    "8.png": lambda path: Image.fromarray(grey(8)).save(path),
    "16.png": lambda path: Image.fromarray(grey(16)).save(path),
    "rgb.png": lambda path: as_rgb(grey(8)).save(path),
    "rgba.png": lambda path: as_rgba(grey(8)).save(path),
    "la.png": lambda path: as_rgba(grey(8)).convert("LA").save(path),
    "palette.png": lambda path: Image.fromarray(grey(8)).convert("P").save(path),
    "8.tif": lambda path: Image.fromarray(grey(8)).save(path),
    "16.tiff": lambda path: Image.fromarray(grey(16)).save(path),
    "8.jpg": lambda path: Image.fromarray(grey(8)).save(path, quality=95),
    "rgb.JPEG": lambda path: as_rgb(grey(8)).save(path, quality=95),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_of_any_format_and_depth_agree(tmp_path: Path, name: str) -> None:
    PICTURES[name](tmp_path / name)
    radiograph = read_radiograph(tmp_path / name)
    write_dicom(tmp_path / "same.dcm", grey(16), BitsStored=16, HighBit=15)
    np.testing.assert_allclose(radiograph.image, read_radiograph(tmp_path / "same.dcm").image, atol=0.3)
    assert np.abs(radiograph.image - read_radiograph(tmp_path / "same.dcm").image).mean() < 0.03
    assert radiograph.image.dtype == np.float32
    assert radiograph.pixel_mm is None
    assert radiograph.oriented
    assert "approximate" in radiograph.note
    assert "frontal" in radiograph.note


@pytest.mark.parametrize(("lateral", "values"), [(False, FRONTAL), (True, LATERAL)])
def test_grey_levels_are_tied_at_percentiles(tmp_path: Path, lateral: bool, values: tuple[float, ...]) -> None:
    # All 65536 levels once: their percentiles, and the straight pieces between them, are known exactly.
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(levels).save(tmp_path / "ramp.png")
    image = read_radiograph(tmp_path / "ramp.png", lateral=lateral).image.ravel()
    # 1 % at either end counts as black borders or lead.
    at = [int(65535 * (1 + 0.98 * p) / 100) for p in (LOWEST, *PERCENTILES)]
    np.testing.assert_allclose(image[at], [0, *values], atol=5e-3)
    assert image[(at[1] + at[2]) // 2] == pytest.approx((values[0] + values[1]) / 2, abs=5e-3)
    assert image.min() == 0
    assert image.max() == np.float32(values[-1])
    assert (np.diff(image) >= 0).all()


def test_borders_and_lead_do_not_move_the_scale(tmp_path: Path) -> None:
    plain = np.minimum(grey(8), 250)
    Image.fromarray(plain).save(tmp_path / "plain.png")
    bordered = np.pad(plain, 24)
    bordered[:12, :12] = 255
    Image.fromarray(bordered).save(tmp_path / "bordered.png")
    body = chest() > 0.5
    expected = read_radiograph(tmp_path / "plain.png").image
    found = read_radiograph(tmp_path / "bordered.png").image
    assert np.abs(found[24:-24, 24:-24] - expected)[body].max() < 0.35
    assert found[60, 0] == 0
    assert found.max() < 7


def test_collimated_borders_are_left_out(tmp_path: Path) -> None:
    plain = grey(8)
    Image.fromarray(np.pad(plain, 24)).save(tmp_path / "plain.png")
    Image.fromarray(np.pad(plain, 24, constant_values=255)).save(tmp_path / "collimated.png")
    found = read_radiograph(tmp_path / "collimated.png")
    np.testing.assert_allclose(found.image, read_radiograph(tmp_path / "plain.png").image, atol=0.01)
    assert "collimated borders left out" in found.note


def test_photographed_simulation_comes_back(tmp_path: Path) -> None:
    """A CT's projection, displayed as 8 bit and read back, is again near its line integrals."""
    scan = SHARED / "ct" / "LCTSC-Test-S1-103.nii.gz"
    if not scan.exists():
        pytest.skip("no CT here")
    hu = sitk.GetArrayFromImage(sitk.ReadImage(str(scan))).astype(np.float32)
    for axis, lateral in ((1, False), (2, True)):
        integrals = np.maximum(0.02 * (1 + hu / 1000), 0).sum(axis) * 2.0
        integrals = integrals[:, : integrals.shape[0]]
        Image.fromarray((integrals / integrals.max() * 255).astype(np.uint8)).save(tmp_path / "drr.png")
        image = read_radiograph(tmp_path / "drr.png", lateral=lateral).image
        inside = integrals > 0.5
        assert np.corrcoef(image[inside], integrals[inside])[0, 1] > 0.98
        assert np.abs(image - integrals)[inside].mean() < 0.8


@pytest.mark.parametrize("name", ["00000001_000.png", "00027426_000.png"])
def test_real_radiograph(name: str) -> None:
    path = SHARED / "radiographs" / name
    if not path.exists():
        pytest.skip("no radiographs here")
    image = read_radiograph(path).image
    assert image.shape == (512, 512)
    lung, abdomen = image[230:260, 110:140], image[440:480, 100:200]  # to the image's left, in both
    assert 1.2 < np.median(lung) < 3
    assert 4 < np.median(abdomen) < 6.5
    assert image.max() < 8


def test_dicom_polarity(tmp_path: Path) -> None:
    bright = read_radiograph(write_dicom(tmp_path / "2.dcm", grey(16) // 16))
    dark = {"PhotometricInterpretation": "MONOCHROME1"}
    inverted = 4095 - grey(16) // 16
    for shape in (None, "INVERSE"):
        found = read_radiograph(write_dicom(tmp_path / "1.dcm", inverted, PresentationLUTShape=shape, **dark))
        np.testing.assert_allclose(found.image, bright.image, atol=1e-4)
        assert "inverted" in found.note
    assert "inverted" not in bright.note
    # Bone is the brightest in either: the body attenuates more than the air beside it.
    assert bright.image[90, 48] > 3 > bright.image[90, 0] == 0


def test_dicom_window_and_slope(tmp_path: Path) -> None:
    """A modality slope changes nothing; a window saturates what is outside of it."""
    pixels = grey(16) // 16
    plain = read_radiograph(write_dicom(tmp_path / "plain.dcm", pixels))
    sloped = write_dicom(tmp_path / "sloped.dcm", pixels, RescaleSlope="2", RescaleIntercept="-100")
    np.testing.assert_allclose(read_radiograph(sloped).image, plain.image, atol=1e-4)
    narrow = write_dicom(tmp_path / "narrow.dcm", pixels, WindowCenter="2000", WindowWidth="1000")
    image = read_radiograph(narrow).image
    assert len(np.unique(image[pixels > 2501])) == 1
    assert (image[pixels < 1499] == 0).all()


def test_dicom_without_ending_and_with_uid_for_a_name(tmp_path: Path) -> None:
    for name in ("IM0001", "1.2.840.113619.2.55"):
        assert read_radiograph(write_dicom(tmp_path / name, grey(16) // 16)).pixel_mm == pytest.approx(0.2)


def test_dicom_spacing(tmp_path: Path) -> None:
    def pixel_mm(**attributes: Any) -> float | None:
        return read_radiograph(write_dicom(tmp_path / "spacing.dcm", grey(16) // 16, **attributes)).pixel_mm

    assert pixel_mm(PixelSpacing=[0.15, 0.15]) == pytest.approx(0.2)  # the detector's, not the patient's
    assert pixel_mm(ImagerPixelSpacing=None, PixelSpacing=[0.15, 0.15]) == pytest.approx(0.15)
    assert pixel_mm(ImagerPixelSpacing=None) is None
    in_patient = {"ImagerPixelSpacing": None, "PixelSpacing": [0.15, 0.15], "PixelSpacingCalibrationType": "GEOMETRY"}
    assert pixel_mm(**in_patient, EstimatedRadiographicMagnificationFactor=1.2) == pytest.approx(0.18)
    assert pixel_mm(**in_patient) == pytest.approx(0.15)  # in the patient
    assert read_radiograph(tmp_path / "spacing.dcm").at_axis
    with pytest.raises(BadInput, match=r"0\.2 × 0\.3 mm"):
        pixel_mm(ImagerPixelSpacing=[0.2, 0.3])


@pytest.mark.parametrize(("view", "kind"), [("PA", "frontal"), ("LL", "lateral"), (None, "frontal")])
def test_dicom_view(tmp_path: Path, view: str | None, kind: str) -> None:
    path = write_dicom(tmp_path / "view.dcm", grey(16) // 16, ViewPosition=view)
    note = read_radiograph(path).note
    assert kind in note
    assert (f"DICOM view {view}" in note) == (view is not None)
    assert read_radiograph(path).view == {"PA": View(180, True), "LL": View(270, True)}.get(view or "")
    assert "lateral" in read_radiograph(path, lateral=True).note


@pytest.mark.parametrize(
    ("source", "detector", "found"),
    [(1600, 1800, (1600, 1800)), (1800, 1600, None), (None, 1800, None), (1600, None, None), (10, 1800, None)],
)
def test_distances_of_a_c_arm(
    tmp_path: Path, source: float | None, detector: float | None, found: tuple | None
) -> None:
    declared = {"DistanceSourceToPatient": source, "DistanceSourceToDetector": detector, "Modality": "XA"}
    assert read_radiograph(write_dicom(tmp_path / "unit.dcm", grey(16) // 16, **declared)).distances == found


@pytest.mark.parametrize("modality", ["CR", "DX"])
@pytest.mark.parametrize("source", [None, 1600, 1746, 1480])
def test_no_axis_is_declared_by_a_plain_radiograph(tmp_path: Path, modality: str, source: float | None) -> None:
    """DistanceSourceToPatient is to the front of the bucky, or to the patient's skin: PS3.3 C.8.11.5."""
    declared = {"DistanceSourceToPatient": source, "DistanceSourceToDetector": 1800, "Modality": modality}
    radiograph = read_radiograph(write_dicom(tmp_path / "unit.dcm", grey(16) // 16, **declared))
    assert radiograph.distances == (None, 1800)
    assert ("DistanceSourceToPatient" in radiograph.note) == (source is not None)


def test_raw_dicom_is_the_logarithm(tmp_path: Path) -> None:
    raw = np.rint(4000 * np.exp(-chest() * 0.8)).astype(np.uint16)
    linear = {"PresentationIntentType": "FOR PROCESSING", "PixelIntensityRelationship": "LIN"}
    found = read_radiograph(
        write_dicom(tmp_path / "raw.dcm", raw, ViewPosition="PA", PixelIntensityRelationshipSign=1, **linear)
    )
    assert found.oriented
    assert "raw detector values" in found.note
    np.testing.assert_allclose(found.image, chest() * 0.8, atol=0.02)


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (["L", "F"], lambda image: image),
        (["P", "FL"], lambda image: image),
        (["R", "F"], lambda image: image[:, ::-1]),
        (["A", "F"], lambda image: image[:, ::-1]),
        (["L", "H"], lambda image: image[::-1]),
        (["R", "H"], lambda image: image[::-1, ::-1]),
    ],
)
def test_dicom_is_hung_for_reading(tmp_path: Path, orientation: list[str], turn: Callable) -> None:
    upright = read_radiograph(write_dicom(tmp_path / "upright.dcm", grey(16) // 16)).image
    pixels = np.ascontiguousarray(turn(grey(16) // 16))
    found = read_radiograph(write_dicom(tmp_path / "turned.dcm", pixels, PatientOrientation=orientation))
    np.testing.assert_array_equal(found.image, upright)
    assert ("flipped" in found.note) == (orientation[0] in "RA")


@pytest.mark.parametrize(("rows", "columns"), [(96, 80), (81, 96)])
def test_square(tmp_path: Path, rows: int, columns: int) -> None:
    found = read_radiograph(write_sitk(tmp_path / "xray.mha", chest(rows, columns) + 1))
    top, left = (96 - rows) // 2, (96 - columns) // 2
    margins = [(top, 96 - rows - top), (left, 96 - columns - left)]
    np.testing.assert_array_equal(found.image, np.pad(chest(rows, columns) + 1, margins, mode="edge"))
    assert found.pixel_mm == pytest.approx(0.5)
    assert not found.oriented  # line integrals
    found = read_radiograph(write_dicom(tmp_path / "xray.dcm", grey(16, rows, columns) // 16))
    assert found.image.shape == (96, 96)
    assert found.oriented
    assert found.pixel_mm == pytest.approx(0.2)


def save_npy(path: Path, array: np.ndarray) -> None:
    np.save(path, array)


def with_nan(path: Path) -> None:
    array = chest()
    array[3, 4] = np.nan
    np.save(path, array)


def truncated(path: Path, write: Callable[[Path], object]) -> None:
    write(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def bomb(path: Path) -> None:
    """A PNG whose header claims 60,000 × 60,000 pixels."""
    Image.fromarray(grey(8)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = (60000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)


def colour(path: Path) -> None:
    Image.fromarray(np.dstack([grey(8), grey(8)[::-1], grey(8)[:, ::-1]])).save(path)


def huge(path: Path) -> None:
    """A header that claims 50,000 × 50,000 pixels."""
    fields = ["NDims = 2", "DimSize = 50000 50000", "ElementType = MET_FLOAT", "ElementDataFile = LOCAL"]
    path.write_text("\n".join(["ObjectType = Image", *fields, ""]))


def pages(path: Path) -> None:
    page = Image.fromarray(grey(8))
    page.save(path, save_all=True, append_images=[page])


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing.png": (lambda path: None, "no such file"),
    "folder.png": (Path.mkdir, "no such file"),
    "notes.txt": (lambda path: path.write_text("PA and lateral"), "not an X-ray format"),
    "picture.bmp": (lambda path: Image.fromarray(grey(8)).save(path), "not an X-ray format"),
    "text.png": (lambda path: path.write_text("not a picture"), "cannot be read"),
    "text.mha": (lambda path: path.write_text("not an image"), "cannot be read"),
    "text.npy": (lambda path: path.write_text("not an array"), "cannot be read"),
    "text.dcm": (lambda path: path.write_text("not DICOM"), "not a DICOM file"),
    "empty.dcm": (lambda path: path.write_bytes(b""), "not a DICOM file"),
    "empty.png": (lambda path: path.write_bytes(b""), "cannot be read"),
    "gif.png": (lambda path: Image.fromarray(grey(8)).save(path, "GIF"), "cannot be read"),
    "cut.png": (lambda path: truncated(path, lambda p: Image.fromarray(grey(16)).save(p)), "cannot be read"),
    "cut.jpg": (lambda path: truncated(path, lambda p: Image.fromarray(grey(8)).save(p)), "cannot be read"),
    "cut.tif": (lambda path: truncated(path, lambda p: Image.fromarray(grey(8)).save(p)), "cannot be read"),
    "cut.npy": (lambda path: truncated(path, lambda p: np.save(p, chest())), "cannot be read"),
    "cut.mha": (lambda path: truncated(path, lambda p: write_sitk(p, chest())), "cannot be read"),
    "cut.dcm": (lambda path: truncated(path, lambda p: write_dicom(p, grey(16) // 16)), "cannot be read"),
    "pickle.npy": (lambda path: np.save(path, np.array([{}], object)), "cannot be read"),
    "nan.npy": (with_nan, "1 pixels are NaN"),
    "negative.npy": (lambda path: save_npy(path, chest() - 1), "values from -1 to"),
    "grey.npy": (lambda path: save_npy(path, chest() * 50), "but line integrals lie between"),
    "integer.npy": (lambda path: save_npy(path, grey(8)), "no floating point values"),
    "integer.nrrd": (lambda path: write_sitk(path, grey(16)), "no floating point values"),
    "flat.npy": (lambda path: save_npy(path, np.full((64, 64), 2.0)), "every pixel is 2"),
    "flat.png": (lambda path: Image.new("L", (64, 64), 90).save(path), "only 1 grey levels"),
    "mask.png": (lambda path: Image.fromarray(grey(8) > 90).save(path), "only 2 grey levels"),
    "small.png": (lambda path: Image.fromarray(grey(8, 31, 60)).save(path), "only 31 × 60 pixels"),
    "small.npy": (lambda path: save_npy(path, chest(20, 20)), "only 20 × 20 pixels"),
    "long.npy": (lambda path: save_npy(path, chest(400, 64)), "no radiograph's shape"),
    "volume.npy": (lambda path: save_npy(path, np.stack([chest()] * 3)), "not one 2D image"),
    "volume.nii.gz": (lambda path: write_sitk(path, np.stack([chest()] * 3)), "not one 2D image"),
    "oblong.mha": (lambda path: write_sitk(path, chest(), (0.5, 0.7)), "0.5 × 0.7 mm"),
    "bomb.png": (bomb, "more than 100 megapixels"),
    "huge.mha": (huge, "more than 100 megapixels"),
    "colour.png": (colour, "a colour picture"),
    "colour.jpg": (colour, "a colour picture"),
    "float.tif": (lambda path: Image.fromarray(chest()).save(path), "a floating point TIFF"),
    "pages.tif": (pages, "several pictures"),
    "ct.dcm": (lambda path: write_dicom(path, grey(16) // 16, Modality="CT"), "modality CT"),
    "movie.dcm": (
        lambda path: write_dicom(path, np.tile(grey(16) // 16, (2, 1)), Rows=96, NumberOfFrames=2),
        "2 frames",
    ),
    "report.dcm": (lambda path: write_dicom(path, grey(16), PixelData=None), "without an image"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(tmp_path: Path, name: str) -> None:
    write, problem = BAD[name]
    write(tmp_path / name)
    with pytest.raises(BadInput) as caught:
        read_radiograph(tmp_path / name)
    message = str(caught.value)
    assert problem in message
    assert message.startswith(str(tmp_path / name))
    assert "\n" not in message


def test_compression_without_a_decoder_is_named(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "xray.dcm", grey(16) // 16)
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = MPEG2MPML
    dataset.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    with pytest.raises(BadInput, match=r"compressed as MPEG2 Main Profile.*export it uncompressed"):
        read_radiograph(path)


def test_a_real_ct_slice_is_no_radiograph() -> None:
    path = SHARED / "dicom" / "Lung_Dx-A0002" / "0000.dcm"
    if not path.exists():
        pytest.skip("no DICOM here")
    with pytest.raises(BadInput, match="modality CT"):
        read_radiograph(path)


def test_damage_anywhere_is_bad_input_or_harmless(tmp_path: Path) -> None:
    """Flipped bytes in headers never surface as another exception."""
    rng = np.random.default_rng(0)
    files = [tmp_path / name for name in ("a.png", "a.tif", "a.jpg", "a.dcm", "a.npy", "a.mha")]
    for path in files[:3]:
        Image.fromarray(grey(8)).save(path)
    write_dicom(files[3], grey(16) // 16)
    np.save(files[4], chest())
    write_sitk(files[5], chest())
    for path in files:
        original = path.read_bytes()
        for _ in range(40):
            damaged = bytearray(original)
            for position in rng.integers(0, 600, 3):
                damaged[position] = rng.integers(0, 256)
            path.write_bytes(damaged)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    image = read_radiograph(path).image
            except BadInput:
                continue
            assert np.isfinite(image).all()
