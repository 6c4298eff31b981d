"""CT volumes in and out: other programs agree on where each voxel is, and what is wrong is said in a line."""

import gzip
import json
import math
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import MRImageStorage, generate_uid

from dicom_files import ct_slice
from raylift.errors import BadInput
from raylift.geometry import Direction, VolumeGrid
from raylift.images.hounsfield import hu_to_mu, hu_to_normalised, normalised_to_hu
from raylift.images.volume import Volume
from raylift.io.volumes import check_writable, read_volume, write_volume
from raylift.storage.atomic import atomic_write_folder, write_json
from raylift.storage.paths import stem_of, suffix_of
from repository import SHARED

GRID = VolumeGrid((5, 6, 7), (1.5, 2.0, 3.0), (-20.0, 10.0, -400.0))
MARK = (1, 4, 2)  # z, y, x
MARK_AT = np.array([-20 + 2 * 1.5, 10 + 4 * 2.0, -400 + 1 * 3.0])  # LPS, by hand


def marked(grid: VolumeGrid = GRID) -> Volume:
    """Air with one voxel of 700 HU, and its neighbour towards the end of x of 300 HU."""
    array = np.full(grid.shape, -1000, np.int16)
    array[MARK] = 700
    array[MARK[0], MARK[1], MARK[2] + 1] = 300
    return Volume(array, grid)


def world_of(volume: Volume, hu: int) -> np.ndarray:
    """World position of the only voxel of this value."""
    ((z, y, x),) = np.argwhere(volume.array == hu)
    return (volume.grid.index_to_world @ [x, y, z, 1])[:3]


# --- Writing, as other programs read it -----------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".mha", ".nii.gz", ".nrrd"])
def test_simpleitk_finds_the_mark_where_it_was(tmp_path: Path, ending: str) -> None:
    image = sitk.ReadImage(str(write_volume(marked(), tmp_path / f"new folder/ct{ending}")))
    assert image.GetPixelID() == sitk.sitkInt16
    index = image.TransformPhysicalPointToIndex(MARK_AT.tolist())
    assert index == (2, 4, 1)
    assert image[index] == 700
    assert image[3, 4, 1] == 300


def test_nibabel_finds_the_mark_where_it_was(tmp_path: Path) -> None:
    image = nibabel.load(write_volume(marked(), tmp_path / "ct.nii.gz"))
    assert image.get_data_dtype() == np.int16
    data = image.get_fdata()
    (index,) = np.argwhere(data == 700)
    # NIfTI's world is RAS: x and y change sign.
    assert image.affine @ [*index, 1] == pytest.approx([-MARK_AT[0], -MARK_AT[1], MARK_AT[2], 1])
    assert image.header.get_zooms() == pytest.approx((1.5, 2, 3))
    assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")


@pytest.mark.parametrize("ending", [".mha", ".nii.gz", ".nrrd", ".npy"])
def test_reads_back_what_it_wrote(tmp_path: Path, ending: str) -> None:
    volume = marked()
    back = read_volume(write_volume(volume, tmp_path / f"ct{ending}"))
    assert np.array_equal(back.array, volume.array)
    assert back.array.dtype == np.int16
    assert back.grid.spacing == pytest.approx(GRID.spacing)
    assert back.grid.origin == pytest.approx(GRID.origin)
    assert back.grid.direction == pytest.approx(GRID.direction)


def test_npy_is_a_plain_array_with_its_grid_beside_it(tmp_path: Path) -> None:
    write_volume(marked(), tmp_path / "ct.npy")
    assert np.load(tmp_path / "ct.npy")[MARK] == 700
    grid = json.loads((tmp_path / "ct.json").read_text())["grid"]
    assert grid["shape_zyx"] == [5, 6, 7]
    assert grid["spacing_xyz_mm"] == [1.5, 2, 3]
    assert grid["origin_lps_mm"] == [-20, 10, -400]


def test_floats_are_rounded_and_clipped_not_cut_off(tmp_path: Path) -> None:
    array = np.zeros(GRID.shape, np.float32)
    array[0, 0, :5] = [-0.6, 0.6, 41.49, 1e6, -1e6]
    back = read_volume(write_volume(Volume(array, GRID), tmp_path / "ct.mha")).array
    assert back[0, 0, :5].tolist() == [-1, 1, 41, 32767, -32768]


def test_unknown_ending_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"ct\.png: not a volume format.*\.mha"):
        write_volume(marked(), tmp_path / "ct.png")
    assert not list(tmp_path.iterdir())
    assert check_writable("A.NII.GZ") == Path("A.NII.GZ")


@pytest.mark.parametrize("ending", [".mha", ".npy"])
def test_a_failing_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    path = write_volume(marked(), tmp_path / f"ct{ending}")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(target: object, *args: object, **options: object) -> None:
        file = Path(target if isinstance(target, str | Path) else str(args[0]))
        file.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(sitk, "WriteImage", full)
    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="no space"):
        write_volume(Volume(np.zeros(GRID.shape, np.int16), GRID), path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    with pytest.raises(OSError, match="no space"):
        write_volume(marked(), tmp_path / f"other{ending}")
    assert {file.name for file in tmp_path.iterdir()} == set(before)


def test_an_array_and_its_grid_are_written_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_volume(marked(), tmp_path / "ct.npy")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(*args: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("raylift.io.npy_files.write_json", full)
    other = Volume(np.zeros((3, 3, 3), np.int16), VolumeGrid.cube((0, 0, 0), 3, 3))
    with pytest.raises(OSError, match="no space"):
        write_volume(other, path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_files_replaced_together(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")

    def write(target: Path, *, fail: bool) -> None:
        with atomic_write_folder(target) as folder:
            for name in "ab":
                (folder / name).write_text("new")
            if fail:
                raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        write(tmp_path, fail=True)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"a": "old"}
    write(tmp_path, fail=False)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"a": "new", "b": "new"}


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    write_json({"a": 1}, tmp_path / "x.json")
    with pytest.raises(TypeError):
        write_json({"a": object()}, tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
    assert len(list(tmp_path.iterdir())) == 1


# --- Reading what other programs wrote ------------------------------------------------------------------------------


def nifti(path: Path, affine: np.ndarray, array: np.ndarray | None = None) -> Path:
    """A NIfTI file by nibabel: array (i, j, k), affine to RAS."""
    if array is None:
        array = np.full((6, 7, 8), -1000, np.int16)
        array[1, 2, 3] = 700
        array[5, 2, 3] = 300
    header = nibabel.Nifti1Header(endianness=">" if array.dtype.byteorder == ">" else "<")
    header.set_data_dtype(array.dtype)
    nibabel.save(nibabel.Nifti1Image(array, affine, header), path)
    return path


AFFINES = {
    "ras": [[2, 0, 0, -5], [0, 3, 0, 7], [0, 0, 4, 11]],
    "lps": [[-2, 0, 0, -5], [0, -3, 0, 7], [0, 0, 4, 11]],
    "head first": [[-2, 0, 0, -5], [0, -3, 0, 7], [0, 0, -4, 11]],
    "coronal": [[0, 0, -4, -5], [2, 0, 0, 7], [0, -3, 0, 11]],
    "sagittal": [[0, 3, 0, -5], [0, 0, 4, 7], [2, 0, 0, 11]],
}


@pytest.mark.parametrize("axes", AFFINES)
def test_turned_and_flipped_files_keep_their_place(tmp_path: Path, axes: str) -> None:
    affine = np.array([*AFFINES[axes], [0, 0, 0, 1]], float)
    volume = read_volume(nifti(tmp_path / "ct.nii.gz", affine))
    to_lps = np.array([-1, -1, 1])
    assert world_of(volume, 700) == pytest.approx((affine @ [1, 2, 3, 1])[:3] * to_lps)
    assert world_of(volume, 300) == pytest.approx((affine @ [5, 2, 3, 1])[:3] * to_lps)
    assert np.reshape(volume.grid.direction, (3, 3)) == pytest.approx(np.eye(3), abs=1e-6)
    assert np.count_nonzero(volume.array != -1000) == 2


def test_oblique_file_keeps_its_angle(tmp_path: Path) -> None:
    turn = np.radians(20)
    cosines: Direction = (np.cos(turn), -np.sin(turn), 0, np.sin(turn), np.cos(turn), 0, 0, 0, 1)
    grid = VolumeGrid(GRID.shape, GRID.spacing, GRID.origin, cosines)
    write_volume(marked(grid), tmp_path / "ct.nrrd")
    volume = read_volume(tmp_path / "ct.nrrd")
    # 2 voxels of 1.5 mm and 4 of 2 mm along the turned axes.
    x = -20 + 3 * np.cos(turn) - 8 * np.sin(turn)
    y = 10 + 3 * np.sin(turn) + 8 * np.cos(turn)
    assert world_of(volume, 700) == pytest.approx([x, y, -397], abs=1e-4)


def test_mhd_with_its_raw_file(tmp_path: Path) -> None:
    sitk.WriteImage(marked().to_sitk(), str(tmp_path / "ct.mhd"))
    assert world_of(read_volume(tmp_path / "ct.mhd"), 700) == pytest.approx(MARK_AT)
    (tmp_path / "ct.raw").unlink()
    with pytest.raises(BadInput, match=r"ct\.mhd: its data file cannot be used \(ct\.raw is missing"):
        read_volume(tmp_path / "ct.mhd")


def test_upper_case_ending(tmp_path: Path) -> None:
    write_volume(marked(), tmp_path / "ct.nii.gz")
    path = (tmp_path / "ct.nii.gz").rename(tmp_path / "CT.NII.GZ")
    assert world_of(read_volume(path), 700) == pytest.approx(MARK_AT)
    assert (stem_of(path), suffix_of(path)) == ("CT", ".nii.gz")


# --- DICOM ----------------------------------------------------------------------------------------------------------


def write_slice(path: Path, pixels: np.ndarray, z: float, series: str, **attributes: object) -> None:
    """One CT slice of 1.5 mm × 2 mm pixels (x × y) whose stored values are (HU + 1024) / 2."""
    rescale = {"PixelRepresentation": 0, "RescaleSlope": 2, "RescaleIntercept": -1024}
    ct_slice(pixels, (-20, 10, z), (1.5, 2.0, 3.0), series, **rescale | attributes).save_as(path)


def write_series(folder: Path, **attributes: object) -> list[Path]:
    """The marked volume as a series whose file names say nothing of the order. Stored values are (HU + 1024) / 2."""
    folder.mkdir(exist_ok=True)
    volume, series, files = marked(), generate_uid(), []
    for k, name in enumerate(("d", "a", "e.dcm", "b", "c.IMA")):
        files.append(folder / name)
        write_slice(files[-1], (volume.array[k].astype(int) + 1024) // 2, -400.0 + 3 * k, series, **attributes)
    return files


def test_dicom_series_in_hu_at_its_place(tmp_path: Path) -> None:
    write_series(tmp_path)
    (tmp_path / "LICENSE.txt").write_text("not a slice")
    volume = read_volume(tmp_path)
    assert volume.array.shape == GRID.shape
    assert np.array_equal(volume.array, marked().array)
    assert world_of(volume, 700) == pytest.approx(MARK_AT)
    assert volume.grid.spacing == pytest.approx(GRID.spacing)


def test_dicom_series_of_a_prone_patient(tmp_path: Path) -> None:
    # Columns run to the right, rows to the front: the first pixel is at the patient's left back.
    write_series(tmp_path, ImageOrientationPatient=[-1, 0, 0, 0, -1, 0])
    volume = read_volume(tmp_path)
    assert world_of(volume, 700) == pytest.approx([-20 - 3, 10 - 8, -397])


@pytest.mark.parametrize("folder", [None, *sorted((SHARED / "dicom").glob("*"))], ids=lambda f: f.name if f else "made")
def test_dicom_series_is_the_scan_others_made_of_it(folder: Path | None, phantom: Volume, tmp_path: Path) -> None:
    """A phantom written slice by slice; and real series, whose `.nii.gz` was resampled from them by other tools."""
    if folder is None:
        folder, series, (x, y, z) = tmp_path, generate_uid(), phantom.grid.origin
        for k, pixels in enumerate(phantom.array):
            place = {"ImagePositionPatient": [f"{x:.6f}", f"{y:.6f}", f"{z + 5 * k:.6f}"], "PixelSpacing": [5, 5]}
            write_slice(folder / f"{97 * k % 1000:03}.dcm", (pixels.astype(int) + 1024) // 2, 0, series, **place)
        reference = phantom
    else:
        reference = read_volume(SHARED / "ct" / f"{folder.name}.nii.gz")
    read = read_volume(folder)
    assert read.grid.shape[0] == len(list(folder.iterdir()))
    inner = VolumeGrid.box(reference.grid.centre, (20, 40, 40), 5.0)
    wanted, got = (volume.resample(inner, smooth=False).array for volume in (reference, read))
    assert np.corrcoef(wanted.ravel(), got.ravel())[0, 1] > 0.98
    assert np.median(np.abs(wanted - got)) < 15


# --- What cannot be read --------------------------------------------------------------------------------------------


def fails(path: Path, problem: str) -> None:
    """Reading raises one line that names the file."""
    with pytest.raises(BadInput, match=problem) as error:
        read_volume(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    fails(tmp_path / "ct.nii.gz", "no such file")


def test_unknown_format(tmp_path: Path) -> None:
    (tmp_path / "ct.png").write_bytes(b"")
    fails(tmp_path / "ct.png", r"not a CT format")


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_text_in_disguise(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"ct{ending}").write_text("patient notes\n")
    fails(tmp_path / f"ct{ending}", "cannot be read")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated_nifti(tmp_path: Path, share: float) -> None:
    noise = np.random.default_rng(0).integers(-1000, 1000, (20, 20, 20)).astype(np.int16)
    whole = nifti(tmp_path / "whole.nii.gz", np.eye(4), noise).read_bytes()
    (tmp_path / "ct.nii.gz").write_bytes(whole[: int(share * len(whole))])
    fails(tmp_path / "ct.nii.gz", "cannot be read")
    plain = gzip.decompress(whole)
    (tmp_path / "ct.nii").write_bytes(plain[: int(share * len(plain))])
    fails(tmp_path / "ct.nii", "cannot be read")


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_truncated_image(tmp_path: Path, ending: str) -> None:
    noise = np.random.default_rng(0).integers(-1000, 1000, (20, 20, 20)).astype(np.int16)
    path = write_volume(Volume(noise, VolumeGrid.cube((0, 0, 0), 20, 20)), tmp_path / f"ct{ending}")
    path.write_bytes(path.read_bytes()[:-4000])
    fails(path, "cannot be read")


def test_damaged_gzip(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(b"x" * 4000))
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "ct.nii.gz").write_bytes(bytes(data))
    fails(tmp_path / "ct.nii.gz", "cannot be read")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8"])
def test_nifti_of_not_only_numbers(tmp_path: Path, value: float, kind: str) -> None:
    array = np.zeros((6, 7, 8), kind)
    array[1, 1, :3] = value
    for ending in (".nii.gz", ".nii"):
        fails(nifti(tmp_path / f"ct{ending}", np.eye(4), array), "3 voxels are NaN or infinite")


def test_big_endian_nifti_of_numbers(tmp_path: Path) -> None:
    array = np.arange(6 * 7 * 8, dtype=">f4").reshape(6, 7, 8)
    nifti(tmp_path / "ct.nii", np.diag([-1, -1, 1, 1]), array)
    assert (tmp_path / "ct.nii").read_bytes()[:4] == (348).to_bytes(4, "big")
    assert np.array_equal(read_volume(tmp_path / "ct.nii").array, array.transpose())


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_image_of_not_only_numbers(tmp_path: Path, ending: str) -> None:
    array = np.zeros((4, 4, 4), np.float32)
    array[1, 1, 1] = np.nan
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"ct{ending}"))
    fails(tmp_path / f"ct{ending}", "1 voxels are NaN or infinite")


def test_four_dimensions(tmp_path: Path) -> None:
    fails(nifti(tmp_path / "ct.nii.gz", np.eye(4), np.zeros((4, 4, 4, 3), np.int16)), "not a scalar 3D volume")


def test_colours(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(np.zeros((4, 4, 4, 3), np.uint8), isVector=True)
    sitk.WriteImage(image, str(tmp_path / "ct.mha"))
    fails(tmp_path / "ct.mha", "3 values per voxel")


def test_single_slice_file(tmp_path: Path) -> None:
    fails(nifti(tmp_path / "ct.nii.gz", np.eye(4), np.zeros((8, 8, 1), np.int16)), "at least 2 per axis")


def npy(folder: Path, array: np.ndarray, grid: object) -> Path:
    np.save(folder / "ct.npy", array)
    (folder / "ct.json").write_text(grid if isinstance(grid, str) else json.dumps(grid))
    return folder / "ct.npy"


def test_npy_without_a_grid(tmp_path: Path) -> None:
    np.save(tmp_path / "ct.npy", np.zeros(GRID.shape, np.int16))
    fails(tmp_path / "ct.npy", r"an array without a grid.*ct\.json")


@pytest.mark.parametrize("grid", ["{", "[]", '{"grid": {}}', '{"grid": 3}'])
def test_npy_with_a_damaged_grid(tmp_path: Path, grid: str) -> None:
    path = npy(tmp_path, np.zeros(GRID.shape, np.int16), grid)
    with pytest.raises(BadInput, match=r"ct\.json: not a grid"):
        read_volume(path)


@pytest.mark.parametrize("kind", ["f2", "?", "U3", "M8[s]", "g"])
def test_npy_of_no_type_that_volumes_have(tmp_path: Path, kind: str) -> None:
    fails(npy(tmp_path, np.zeros(GRID.shape, kind), {"grid": GRID.to_dict()}), "an array of .*; save it as int16")


@pytest.mark.parametrize("kind", [">i2", ">f4", "<f8", "u1", "i8"])
def test_npy_of_any_byte_order(tmp_path: Path, kind: str) -> None:
    array = np.zeros(GRID.shape, kind)
    array[MARK] = 70
    assert world_of(read_volume(npy(tmp_path, array, {"grid": GRID.to_dict()})), 70) == pytest.approx(MARK_AT)


def test_npy_of_another_shape_or_kind(tmp_path: Path) -> None:
    grid = {"grid": GRID.to_dict()}
    fails(npy(tmp_path, np.zeros((7, 6, 5), np.int16), grid), r"\(7, 6, 5\), but its grid has \(5, 6, 7\)")
    fails(npy(tmp_path, np.zeros(GRID.shape, complex), grid), "complex128")
    np.save(tmp_path / "ct.npy", np.array([{"pickled": "object"}]), allow_pickle=True)
    fails(tmp_path / "ct.npy", "not a NumPy array of numbers")
    (tmp_path / "ct.npy").write_bytes(b"")
    fails(tmp_path / "ct.npy", "not a NumPy array of numbers")


def test_empty_folder(tmp_path: Path) -> None:
    fails(tmp_path, "no DICOM CT slices")


def test_two_series_in_a_folder(tmp_path: Path) -> None:
    write_series(tmp_path)
    other = generate_uid()
    for k in range(2):
        write_slice(tmp_path / f"other-{k}.dcm", np.zeros((6, 7), int), 3.0 * k, other, SeriesDescription="lung, sharp")
    fails(tmp_path, r"2 series in one folder \(5 slices, 2 slices 'lung, sharp'\)")


def test_missing_and_doubled_slices(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    contents = files[3].read_bytes()
    files[3].unlink()
    fails(tmp_path, r"slice gaps from 3\.00 to 6\.00 mm, the largest at -394\.0 mm; slices are missing")
    files[3].write_bytes(contents)
    header = pydicom.dcmread(files[3])
    header.SOPInstanceUID = generate_uid()
    header.save_as(tmp_path / "again")
    fails(tmp_path, r"1 of 6 slices are at the position of another \(again, b\)")
    header.AcquisitionNumber = 2
    header.save_as(tmp_path / "again")
    fails(tmp_path, r"\(again, b\): several acquisitions; put those of each AcquisitionNumber in their own folder")


def test_a_copy_of_a_file_is_left_out(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    (tmp_path / "x").write_bytes(files[3].read_bytes())
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array, marked().array)
    assert volume.notes == ("left out: x (copies of other files)",)


def test_a_single_slice(tmp_path: Path) -> None:
    for file in write_series(tmp_path)[1:]:
        file.unlink()
    fails(tmp_path, "a single DICOM slice")


def test_a_series_that_is_not_ct(tmp_path: Path) -> None:
    write_series(tmp_path, Modality="MR", SOPClassUID=MRImageStorage)
    fails(tmp_path, "no DICOM CT slices")


def test_slices_of_different_size(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    header = pydicom.dcmread(files[2], stop_before_pixels=True)
    write_slice(files[2], np.zeros((3, 3), int), -394.0, header.SeriesInstanceUID)
    fails(tmp_path, r"slices of 6 × 7 pixels \(4 slices\) and 3 × 3 pixels \(1 slices\)")


# --- Resampling -----------------------------------------------------------------------------------------------------


def ball(grid: VolumeGrid, centre: tuple[float, float, float], radius: float) -> Volume:
    """Water in air, an edge of 2 mm."""
    distance = np.linalg.norm(grid.points() - centre, axis=-1)
    return Volume((1000 * np.clip((radius - distance) / 2 + 0.5, 0, 1) - 1000).astype(np.float32), grid)


def centre_of_mass(volume: Volume) -> np.ndarray:
    mass = volume.array.astype(float) + 1000
    return (mass[..., None] * volume.grid.points()).sum((0, 1, 2)) / mass.sum()


@pytest.mark.parametrize("smooth", [True, False])
def test_resampling_moves_nothing(smooth: bool) -> None:
    place = (12.0, -31.0, 55.0)
    volume = ball(VolumeGrid.box((10, -30, 50), (60, 50, 70), 1.5), place, 15)
    turn = np.radians(30)
    cosines: Direction = (np.cos(turn), -np.sin(turn), 0, np.sin(turn), np.cos(turn), 0, 0, 0, 1)
    for grid in (
        VolumeGrid.cube((14, -28, 53), 72, 24),
        VolumeGrid((18, 30, 40), (2.5, 2.5, 4.0), (-25.0, -90.0, 20.0), cosines),
    ):
        moved = volume.resample(grid, smooth=smooth)
        assert moved.array.dtype == np.float32
        assert centre_of_mass(moved) == pytest.approx(place, abs=0.2)
        mass = (moved.array + 1000).sum() * np.prod(grid.spacing)
        assert mass == pytest.approx((volume.array + 1000).sum() * 1.5**3, rel=0.01)


def test_smoothing_keeps_the_mean_and_lessens_noise() -> None:
    noise = np.random.default_rng(3).normal(40, 100, (48, 48, 48)).astype(np.float32)
    volume = Volume(noise, VolumeGrid.cube((0, 0, 0), 96, 48))
    coarse = VolumeGrid.cube((0, 0, 0), 60, 10)  # 6 mm instead of 2
    smooth, plain = (volume.resample(coarse, smooth=s).array for s in (True, False))
    assert smooth.mean() == pytest.approx(40, abs=3)
    # A Gaussian of 1.2 old voxels leaves 1/sqrt(8·(√π·1.2)³) ≈ 0.11 of white noise; single samples keep nearly all.
    assert 8 < smooth.std() < 15
    assert plain.std() > 25


def test_a_finer_grid_is_not_smoothed() -> None:
    volume = ball(VolumeGrid.cube((0, 0, 0), 80, 20), (5, -3, 2), 20)
    fine = VolumeGrid.cube((0, 0, 0), 60, 30)
    assert np.array_equal(volume.resample(fine).array, volume.resample(fine, smooth=False).array)


def test_outside_is_filled() -> None:
    volume = Volume(np.zeros(GRID.shape, np.int16), GRID)
    away = VolumeGrid.cube((500, 500, 500), 10, 2)
    assert (volume.resample(away).array == -1000).all()
    assert (volume.resample(away, fill=7.0).array == 7).all()


# --- Units ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hu", "unit", "mu"),
    [(-1000, 0, 0), (0, 0.5, 0.02), (1000, 1, 0.04), (-500, 0.25, 0.01), (3000, 1, 0.08), (-1024, 0, 0)],
)
def test_units_by_hand(hu: float, unit: float, mu: float) -> None:
    assert hu_to_normalised(np.array([hu], float)) == pytest.approx([unit])
    assert hu_to_mu(np.array([hu], float)) == pytest.approx([mu])


def test_the_window_can_be_undone() -> None:
    hu = np.linspace(-1000, 1000, 21)
    assert normalised_to_hu(hu_to_normalised(hu)) == pytest.approx(hu)


def test_integers_convert_like_floats() -> None:
    hu = np.array([-1024, -1000, 40, 3071], np.int16)
    assert hu_to_normalised(hu) == pytest.approx([0, 0, 0.52, 1])
    assert hu_to_mu(hu) == pytest.approx([0, 0, 0.0208, 0.08142])


def test_a_volume_and_its_grid_agree() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        Volume(np.zeros((5, 6, 8)), GRID)


def test_slices_at_one_place(tmp_path: Path) -> None:
    series = generate_uid()
    for k in range(4):
        write_slice(tmp_path / f"{k}.dcm", np.full((6, 7), k), -400.0, series)
    fails(tmp_path, "all slices have the same position")


@pytest.mark.parametrize("spacing", [3.0, 9.0])
def test_pieces_make_the_whole(monkeypatch: pytest.MonkeyPatch, spacing: float) -> None:
    """Resampled a few slices at a time from what these need, as from all: turned, and not covering the grid."""
    array = np.random.default_rng(0).normal(0, 300, (40, 36, 44)).astype(np.float32)
    tilt = math.radians(20)
    direction = (1, 0, 0, 0, math.cos(tilt), -math.sin(tilt), 0, math.sin(tilt), math.cos(tilt))
    volume = Volume(array, VolumeGrid(array.shape, (2.0, 2.5, 3.0), (-40.0, -30.0, -50.0), direction))
    grid = VolumeGrid.box((5, 8, 12), (30, 20, 24), spacing)
    whole = volume.resample(grid).array
    monkeypatch.setattr("raylift.images.volume.PIECE", array.size // 8)
    np.testing.assert_allclose(volume.resample(grid).array, whole, atol=0.01)
    assert len(np.unique(whole)) > 1000
