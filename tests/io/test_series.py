"""CT series as scanners and archives write them, against a scan that they were sampled from."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import EnhancedCTImageStorage, generate_uid
from scipy import ndimage

from dicom_files import ct_slice
from raylift.errors import BadInput
from raylift.images.volume import Volume
from raylift.io.volumes import read_volume

STEP = 4.0  # mm from slice to slice
Change = Callable[[int, Dataset], None]


def values_at(points: np.ndarray) -> np.ndarray:
    """The scan at world points (..., 3): smooth, without symmetry, lighter than soft tissue, in HU."""
    x, y, z = np.moveaxis(points, -1, 0)
    hu: np.ndarray = 200 * np.sin(x / 25 + 1) * np.cos(y / 30) + 120 * np.sin(z / 20 + x / 40) - 450
    return hu


def write(
    folder: Path,
    step: Sequence[float] = (0, 0, STEP),
    axes: Sequence[Sequence[float]] = ((1, 0, 0), (0, 1, 0)),
    change: Change | None = None,
    count: int = 24,
) -> list[Path]:
    """A series whose slices show the scan's function where each says that it lies; stored values are HU + 1024."""
    folder.mkdir(parents=True, exist_ok=True)
    series, files = generate_uid(), []
    rows, columns = np.mgrid[:40, :44]
    for k in range(count):
        corner = np.array([-60.0, -50.0, 100.0]) + k * np.asarray(step)
        points = corner + 3 * columns[..., None] * np.asarray(axes[0]) + 3 * rows[..., None] * np.asarray(axes[1])
        stored = np.rint(values_at(points) + 1024).astype(int)
        cosines = [float(c) for axis in axes for c in axis]
        dataset = ct_slice(
            stored, corner, (3, 3, STEP), series, PixelRepresentation=0, RescaleSlope=1, RescaleIntercept=-1024,
            ImageOrientationPatient=[f"{c:.6g}" for c in cosines], InstanceNumber=k + 1,
        )  # fmt: skip
        if change:
            change(k, dataset)
        files.append(folder / f"{k:03}.dcm")
        dataset.save_as(files[-1], enforce_file_format=True)
    return files


def check_values(volume: Volume, tolerance: float) -> None:
    """The volume holds the scan's function wherever it is not filled with air, but for the voxels beside such."""
    inside = volume.array > -999
    if not inside.all():
        inside = ndimage.binary_erosion(inside, np.ones((1, 3, 3)))
    assert inside.mean() > 0.5
    assert np.abs(volume.array - values_at(volume.grid.points()))[inside].max() < tolerance


def tilted(angle: float) -> tuple[list[float], list[list[float]]]:
    """A gantry tilted by an angle in degrees, over a table that moves along z: step and axes."""
    turn = np.radians(angle)
    return [0, 0, STEP], [[1, 0, 0], [0, np.cos(turn), np.sin(turn)]]


@pytest.mark.parametrize("step", [(0, STEP * np.tan(np.radians(2.8)), STEP), (0, 1.5, STEP), (-1.2, 0.7, STEP)],
                         ids=["2.8 degrees", "20 degrees", "oblique"])  # fmt: skip
def test_sheared_slices_are_resampled(tmp_path: Path, step: tuple[float, ...]) -> None:
    write(tmp_path, step)
    volume = read_volume(tmp_path)
    check_values(volume, 3.0)
    assert np.reshape(volume.grid.direction, (3, 3)) == pytest.approx(np.eye(3))
    assert volume.grid.spacing == pytest.approx((3, 3, STEP))
    assert any("sheared by" in note for note in volume.notes)


@pytest.mark.parametrize("angle", [-20.0, 5.0])
def test_a_tilted_gantry(tmp_path: Path, angle: float) -> None:
    write(tmp_path, *tilted(angle))
    volume = read_volume(tmp_path)
    check_values(volume, 3.0)
    assert volume.grid.spacing[2] == pytest.approx(STEP * np.cos(np.radians(angle)))
    assert f"slices sheared by {abs(angle):.1f}°, as by a tilted gantry: resampled to a box" in volume.notes


@pytest.mark.parametrize("step", [(3.0, 0, STEP), (0, -3.0, STEP)], ids=["sideways", "to the front"])
def test_a_body_that_sheared_slices_cut_off_is_not_passed_on(tmp_path: Path, step: tuple[float, ...]) -> None:
    """A cylinder along z of which the field of view, moved from slice to slice, loses half."""
    rows, columns = np.mgrid[:60, :60]

    def change(k: int, dataset: Dataset) -> None:
        x, y = columns * 3 - 90 + k * step[0], rows * 3 - 90 + k * step[1]
        stored = np.where(x**2 + y**2 < 80**2, 1064, 24).astype("<u2")
        dataset.Rows, dataset.Columns, dataset.PixelData = 60, 60, stored.tobytes()

    write(tmp_path, step, change=change)
    with pytest.raises(BadInput, match="slices sheared by 37° cut the body off"):
        read_volume(tmp_path)


def test_an_oblique_volume_is_not_resampled(tmp_path: Path) -> None:
    turn = np.radians(15)
    axes = [[np.cos(turn), np.sin(turn), 0], [-np.sin(turn), np.cos(turn), 0]]
    write(tmp_path, axes=axes)
    volume = read_volume(tmp_path)
    check_values(volume, 1.0)
    assert volume.array.dtype == np.int16
    assert volume.notes == ()


def moved(**by: float) -> Change:
    def change(k: int, dataset: Dataset) -> None:
        if k >= 12:
            x, y, z = (float(value) for value in dataset.ImagePositionPatient)
            dataset.ImagePositionPatient = [x + by.get("x", 0), y + by.get("y", 0), z + by.get("z", 0)]

    return change


def turned(k: int, dataset: Dataset) -> None:
    if k == 5:
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 0.9998, 0.02]


def coarser(k: int, dataset: Dataset) -> None:
    if k == 5:
        dataset.PixelSpacing = [3.5, 3.5]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (moved(x=40), r"do not lie evenly on a line: 01\d\.dcm is \d+\.\d\d mm off along x"),
        (moved(y=1), r"do not lie evenly on a line: 01\d\.dcm is 0\.\d\d mm off along y"),
        (moved(z=1.5), r"do not lie evenly on a line: 01\d\.dcm is 0\.\d\d mm off along z"),
        (moved(z=4), r"slice gaps from 4\.00 to 8\.00 mm, the largest at 144\.0 mm"),
        (turned, r"slices turned against each other by 1\.1° \(000\.dcm, 005\.dcm\)"),
        (coarser, r"pixels of 3 × 3 mm in 000\.dcm and 3\.5 × 3\.5 mm in 005\.dcm"),
    ],
    ids=["recentred", "1 mm aside", "a wider gap", "a missing slice", "turned", "of another pixel size"],
)
def test_what_differs_is_named(tmp_path: Path, change: Change, problem: str) -> None:
    write(tmp_path, change=change)
    with pytest.raises(BadInput, match=problem):
        read_volume(tmp_path)


def test_rounded_positions_are_no_gaps(tmp_path: Path) -> None:
    def rounded(k: int, dataset: Dataset) -> None:
        dataset.ImagePositionPatient = [-60, -50, f"{100 + 0.625 * k:.1f}"]

    write(tmp_path, change=rounded, count=200)
    volume = read_volume(tmp_path)
    assert volume.grid.spacing[2] == pytest.approx(0.625, abs=1e-3)
    assert volume.notes == ()


@pytest.mark.parametrize("missing", [1, 50, 198])
def test_a_missing_slice_of_rounded_ones(tmp_path: Path, missing: int) -> None:
    def rounded(k: int, dataset: Dataset) -> None:
        dataset.ImagePositionPatient = [-60, -50, f"{100 + 0.625 * k:.1f}"]

    write(tmp_path, change=rounded, count=200)[missing].unlink()
    with pytest.raises(BadInput, match="slice gaps from"):
        read_volume(tmp_path)


# --- Values ---------------------------------------------------------------------------------------------------------

RING = np.hypot(*(np.mgrid[:40, :44] - np.array([20, 22])[:, None, None])) > 19


def stored(dataset: Dataset) -> np.ndarray:
    """The stored values of a slice that `write` is about to write."""
    return np.frombuffer(dataset.PixelData, np.uint16).reshape(40, 44).astype(int)


def set_stored(dataset: Dataset, values: np.ndarray, bits: int = 16, signed: bool = False, shift: int = 0) -> None:
    dataset.PixelData = ((values & (2**bits - 1)) << shift).astype("<u2").tobytes()
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1 + shift, int(signed)


def padded(value: int, tag: int, signed: bool, limit: int | None = None) -> Change:
    def change(k: int, dataset: Dataset) -> None:
        values = stored(dataset) - (1024 if signed else 0)
        values[RING] = value
        set_stored(dataset, values, signed=signed)
        dataset.RescaleIntercept = 0 if signed else -1024
        dataset.add_new(0x00280120, "SS" if tag < 0 else "US", tag)
        if limit is not None:
            values[0, 0] = limit
            dataset.add_new(0x00280121, "SS" if limit < 0 else "US", limit)
            set_stored(dataset, values, signed=signed)

    return change


@pytest.mark.parametrize(
    "change",
    [
        padded(63536, 63536, signed=False),
        padded(-2000, -2000, signed=True),
        padded(-2000, 63536, signed=True),
        padded(63536, -2000, signed=False),
        padded(-2000, -2000, signed=True, limit=-1990),
        padded(5000, 5000, signed=False),
    ],
    ids=["unsigned", "signed", "signed, tag unsigned", "unsigned, tag signed", "a range", "among possible values"],
)
def test_padding_is_air(tmp_path: Path, change: Change) -> None:
    write(tmp_path, change=change)
    volume = read_volume(tmp_path)
    assert (volume.array[:, RING] == -1000).all()
    wanted = values_at(volume.grid.points())
    assert np.abs(volume.array - wanted)[:, ~RING].max() < 1
    assert volume.array.dtype == np.int16


@pytest.mark.parametrize(("bits", "signed", "shift"), [(12, False, 0), (12, False, 4), (13, True, 0), (12, True, 3)])
def test_bits_beside_the_stored_ones_are_no_values(tmp_path: Path, bits: int, signed: bool, shift: int) -> None:
    def change(k: int, dataset: Dataset) -> None:
        values = stored(dataset)
        if signed:
            values, dataset.RescaleIntercept = values - 1024, 0
        set_stored(dataset, values, bits, signed, shift)
        if not shift:  # an overlay in the upper bits
            words = np.frombuffer(dataset.PixelData, np.uint16) | np.where(np.arange(1760) % 3, 0, 0x8000).astype(
                np.uint16
            )
            dataset.PixelData = words.tobytes()

    write(tmp_path, change=change)
    volume = read_volume(tmp_path)
    assert np.abs(volume.array - values_at(volume.grid.points())).max() < 1


def test_each_slice_has_its_own_rescale(tmp_path: Path) -> None:
    def change(k: int, dataset: Dataset) -> None:
        slope, intercept = (1, -1024) if k % 2 else (0.5, -2000)
        set_stored(dataset, np.rint((stored(dataset) - 1024 - intercept) / slope).astype(int))
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
        if k == 0:  # values are HU as they are
            set_stored(dataset, (stored(dataset) * slope + intercept).astype(int), signed=True)
            del dataset.RescaleSlope, dataset.RescaleIntercept

    write(tmp_path, change=change)
    check_values(read_volume(tmp_path), 1.0)


# --- Files ----------------------------------------------------------------------------------------------------------


def localizer(folder: Path, series: str, **attributes: object) -> None:
    """A sagittal localizer."""
    ct_slice(
        np.zeros((50, 60), int), (0, -80, 200), (2, 2, 1), series,
        ImageOrientationPatient=[0, 1, 0, 0, 0, -1], **attributes,
    ).save_as(folder / "scout.dcm", enforce_file_format=True)  # fmt: skip


@pytest.mark.parametrize("own", [False, True], ids=["in the series", "in its own series"])
@pytest.mark.parametrize(("kind", "reason"), [
    ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
    ({}, "another plane|single slices of other series"),
])  # fmt: skip
def test_a_localizer_is_left_out_by_name(tmp_path: Path, own: bool, kind: dict[str, object], reason: str) -> None:
    files = write(tmp_path)
    series = generate_uid() if own else pydicom.dcmread(files[0]).SeriesInstanceUID
    localizer(tmp_path, series, **kind)
    volume = read_volume(tmp_path)
    check_values(volume, 1.0)
    (note,) = volume.notes
    assert note.startswith("left out: scout.dcm (")
    assert any(words in note for words in reason.split("|"))


def test_other_objects_are_left_out_by_name(tmp_path: Path) -> None:
    files = write(tmp_path)
    report = pydicom.dcmread(files[0])
    report.SOPClassUID, report.Modality = "1.2.840.10008.5.1.4.1.1.88.67", "SR"
    report.SOPInstanceUID = generate_uid()
    del report.PixelData
    report.save_as(tmp_path / "dose.dcm")
    (tmp_path / "report.pdf").write_bytes(b"%PDF-1.4 ...")
    volume = read_volume(tmp_path)
    check_values(volume, 1.0)
    assert volume.notes == ("left out: dose.dcm (modality SR)", "left out: report.pdf (no DICOM image)")


def test_slices_of_two_planes(tmp_path: Path) -> None:
    files = write(tmp_path)
    series = pydicom.dcmread(files[0]).SeriesInstanceUID
    for k in range(20):
        ct_slice(
            np.zeros((24, 44), int),
            (-60, -50 + 4 * k, 200),
            (3, 4, 4),
            series,
            ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
        ).save_as(tmp_path / f"coronal-{k}.dcm", enforce_file_format=True)
    with pytest.raises(BadInput, match=r"slices in several planes \(24 and 20\)"):
        read_volume(tmp_path)


@pytest.mark.parametrize("name", ["CT.1.2.840.113619.2.55.3.{}", "{:04}", "{:04}.dicom", "IM{}.ima"])
@pytest.mark.parametrize("preamble", [True, False], ids=["with preamble", "without"])
def test_names_and_preambles_do_not_matter(tmp_path: Path, name: str, preamble: bool) -> None:
    for k, file in enumerate(write(tmp_path)):
        content = file.read_bytes()
        file.unlink()
        if not preamble:  # as ACR-NEMA wrote them: the dataset alone
            dataset = pydicom.dcmread(__import__("io").BytesIO(content))
            start = content.index(b"\x08\x00", 132)
            content = content[132 + 12 + dataset.file_meta.FileMetaInformationGroupLength :]
            assert content[:2] == b"\x08\x00", start
        (tmp_path / name.format(k)).write_bytes(content)
    check_values(read_volume(tmp_path), 1.0)


def item(**values: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def enhanced(path: Path, step: Sequence[float] = (0, 0, STEP), axes: Sequence[Sequence[float]] = ((1, 0, 0), (0, 1, 0)),
             order: Sequence[int] = range(24)) -> None:  # fmt: skip
    """The series as one Enhanced CT file, whose frames have slopes of their own and lie in any order."""
    folder = path.parent / "single"
    slices = [pydicom.dcmread(file) for file in write(folder, step, axes)]
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    whole = slices[0]
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    whole.NumberOfFrames = 24
    frames, pixels = [], []
    for k in order:
        one, slope = slices[k], 1 + k % 3
        values = np.rint((stored(one) - 1024 + 1000) / slope).astype(np.int16)
        pixels.append(values.tobytes())
        frames.append(item(
            PlanePositionSequence=DicomSequence([item(ImagePositionPatient=one.ImagePositionPatient)]),
            PixelValueTransformationSequence=DicomSequence([item(RescaleSlope=slope, RescaleIntercept=-1000)]),
        ))  # fmt: skip
    whole.SharedFunctionalGroupsSequence = DicomSequence([item(
        PixelMeasuresSequence=DicomSequence([item(PixelSpacing=[3, 3], SliceThickness=4)]),
        PlaneOrientationSequence=DicomSequence([item(ImageOrientationPatient=whole.ImageOrientationPatient)]),
    )])  # fmt: skip
    whole.PerFrameFunctionalGroupsSequence = DicomSequence(frames)
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "RescaleSlope",
        "RescaleIntercept",
    ):
        delattr(whole, keyword)
    whole.PixelRepresentation, whole.PixelData = 1, b"".join(pixels)
    whole.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize(
    "order", [range(24), np.random.default_rng(0).permutation(24)], ids=["in order", "in any order"]
)
@pytest.mark.parametrize("as_folder", [False, True], ids=["file", "folder"])
def test_frames_of_one_file(tmp_path: Path, order: Sequence[int], as_folder: bool) -> None:
    enhanced(tmp_path / "IM1", order=order)
    volume = read_volume(tmp_path if as_folder else tmp_path / "IM1")
    check_values(volume, 2.0)
    assert volume.array.shape == (24, 40, 44)


def test_frames_of_a_tilted_gantry(tmp_path: Path) -> None:
    enhanced(tmp_path / "IM1.dcm", *tilted(12.0))
    check_values(read_volume(tmp_path / "IM1.dcm"), 3.0)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    files = write(tmp_path)
    files[4].write_bytes(files[4].read_bytes()[:-500])
    with pytest.raises(BadInput, match=r"004\.dcm: its pixels cannot be read"):
        read_volume(tmp_path)
