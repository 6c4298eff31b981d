"""NIfTI files whose forms are missing, rounded, sheared, or say two things."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from raylift.errors import BadInput
from raylift.geometry import VolumeGrid
from raylift.images.volume import Volume
from raylift.io.volumes import read_volume

AFFINE = np.array([[-3.0, 0, 0, 66], [0, -3.0, 0, 60], [0, 0, 4.0, -40], [0, 0, 0, 1]])  # to RAS
SHAPE = (44, 40, 24)  # (x, y, z)


def values_at(points: np.ndarray) -> np.ndarray:
    """A scan at world points (..., 3), LPS: smooth, without symmetry, lighter than soft tissue, in HU."""
    x, y, z = np.moveaxis(points, -1, 0)
    hu: np.ndarray = 200 * np.sin(x / 25 + 1) * np.cos(y / 30) + 120 * np.sin(z / 20 + x / 40) - 450
    return hu


def sampled(affine: np.ndarray) -> np.ndarray:
    """The scan at the voxels (x, y, z) of an affine to RAS."""
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
    ras = index @ affine[:3, :3].T + affine[:3, 3]
    return np.rint(values_at(ras * [-1, -1, 1])).astype(np.int16)


def save(path: Path, data: np.ndarray, *, sform: np.ndarray | None = None, qform: np.ndarray | None = None,
         unit: str = "mm", kind: type = nibabel.Nifti1Image) -> Path:  # fmt: skip
    image = kind(data, AFFINE)
    image.set_sform(AFFINE if sform is None else sform, 0 if sform is None else 2)
    image.set_qform(AFFINE if qform is None else qform, 0 if qform is None else 1)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)
    return path


def check(volume: Volume, tolerance: float = 1.0) -> None:
    inside = volume.array > -999
    assert inside.mean() > 0.5
    inside[:, [0, -1]] = inside[:, :, [0, -1]] = False
    off = np.abs(volume.array - values_at(volume.grid.points()))
    shifted = np.abs(np.diff(inside.astype(int), axis=1, prepend=0)) + np.abs(
        np.diff(inside.astype(int), axis=1, append=0)
    )
    assert off[inside & (shifted == 0)].max() < tolerance


def test_either_form_and_both_versions(tmp_path: Path) -> None:
    data = sampled(AFFINE)
    for name, options in {
        "s": {"sform": AFFINE}, "q": {"qform": AFFINE}, "both": {"sform": AFFINE, "qform": AFFINE},
        "two": {"sform": AFFINE, "kind": nibabel.Nifti2Image},
    }.items():  # fmt: skip
        volume = read_volume(save(tmp_path / f"{name}.nii.gz", data, **options))
        check(volume)
        assert volume.array.dtype == np.int16
        assert volume.notes == ()


def test_a_rounded_form_is_made_perpendicular(tmp_path: Path) -> None:
    rounded = AFFINE.copy()
    rounded[0, 1] = 2e-3
    volume = read_volume(save(tmp_path / "ct.nii.gz", sampled(AFFINE), sform=rounded))
    check(volume, 3.0)
    VolumeGrid.from_dict(volume.grid.to_dict())  # its axes are perpendicular


@pytest.mark.parametrize("shear", [-0.25, 1.0])
@pytest.mark.parametrize("code", ["sform alone", "sform beside another qform"])
def test_a_sheared_form_is_resampled(tmp_path: Path, shear: float, code: str) -> None:
    tilted = AFFINE.copy()
    tilted[1, 2] = shear
    other = {"qform": AFFINE} if code != "sform alone" else {}
    volume = read_volume(save(tmp_path / "ct.nii.gz", sampled(tilted), sform=tilted, **other))
    check(volume, 3.0)
    assert any("sheared by" in note for note in volume.notes)
    assert any("sform and qform differ" in note for note in volume.notes) == bool(other)


def test_axes_that_no_scanner_has(tmp_path: Path) -> None:
    skew = AFFINE.copy()
    skew[0, 1], skew[1, 2], skew[2, 0] = 1.0, 1.0, 1.0
    with pytest.raises(BadInput, match=r"ct\.nii\.gz: its axes are not at right angles"):
        read_volume(save(tmp_path / "ct.nii.gz", sampled(AFFINE), sform=skew))


def test_two_forms_that_differ_are_noted(tmp_path: Path) -> None:
    moved = AFFINE.copy()
    moved[0, 3] += 25
    volume = read_volume(save(tmp_path / "ct.nii.gz", sampled(AFFINE), sform=AFFINE, qform=moved))
    check(volume)
    assert volume.notes == ("the file's sform and qform differ by up to 25 mm: the sform is used",)


def test_without_a_form_the_side_is_assumed(tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "ct.nii.gz", sampled(AFFINE)))
    assert volume.notes == ("the file has neither sform nor qform: rows assumed to run to the patient's left",)


@pytest.mark.parametrize(("unit", "length"), [("meter", 1000.0), ("micron", 0.001), ("unknown", 1.0)])
def test_units_of_length(tmp_path: Path, unit: str, length: float) -> None:
    affine = AFFINE.copy()
    affine[:3] /= length
    volume = read_volume(save(tmp_path / "ct.nii", sampled(AFFINE), sform=affine, unit=unit))
    assert volume.grid.spacing == pytest.approx((3, 3, 4))
    check(volume)


def test_scaled_integers(tmp_path: Path) -> None:
    path = save(tmp_path / "ct.nii", 2 * (sampled(AFFINE) + 200), sform=AFFINE)
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([0.5, -200], "<f4").tobytes()  # scl_slope and scl_inter
    path.write_bytes(content)
    check(read_volume(path))
