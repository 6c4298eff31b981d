"""The prepared folder as it is read back: what it says, and every way in which it can be damaged."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from raylift.data.dataset import PreparedDataset
from raylift.data.preparation import PreparationSettings, prepare_case
from raylift.errors import BadInput, WrongUsage
from raylift.geometry import Geometry, View

VIEWS = (View(0.0), View(90.0))
HUGE = {"shape_zyx": [10**4] * 3, "spacing_xyz_mm": [1.0] * 3, "origin_lps_mm": [0.0] * 3}


@pytest.fixture(scope="module")
def dataset(prepared: Path) -> PreparedDataset:
    return PreparedDataset(prepared)


def test_what_the_folder_says(dataset: PreparedDataset, prepared: Path) -> None:
    assert dataset.views == VIEWS
    assert dataset.geometry == Geometry(1600.0, 1800.0, 430.0, 64)
    assert (dataset.voxels, dataset.cube_mm) == (64, 320.0)
    assert dataset.names("train") == ["phantom-0", "phantom-1"]
    assert [case.name for case in dataset.cases("validation")] == ["phantom-2"]
    assert dataset.names("all") == ["phantom-0", "phantom-1", "phantom-2"]
    assert dataset.view_indices([View(90.0)]) == [1]
    case = dataset.case("phantom-0")
    stored = sitk.ReadImage(str(prepared / "cases" / "phantom-0" / "ct.nii.gz"))
    assert np.array_equal(case.truth.array, sitk.GetArrayFromImage(stored))
    assert case.truth.grid.centre == pytest.approx(case.isocentre, abs=1e-3)
    assert case.context.shape == case.context_grid.shape
    assert isinstance(case.context, np.memmap)


def test_what_the_folder_does_not_have(dataset: PreparedDataset, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not a prepared dataset"):
        PreparedDataset(tmp_path)
    with pytest.raises(WrongUsage, match=r"'trian' is no split of .*; the nearest is 'train'"):
        dataset.names("trian")
    with pytest.raises(BadInput, match="phantom-9: not a prepared case"):
        dataset.case("phantom-9")
    with pytest.raises(BadInput, match=r"no X-rays of view pa; it has ap, lateral-right"):
        dataset.view_indices([View(0.0), View.parse("pa")])


@pytest.mark.parametrize("text", ["{", "{}", '{"voxels": "many"}', "[]"])
def test_a_damaged_description(prepared: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    (tmp_path / "splits.json").write_text((prepared / "splits.json").read_text())
    with pytest.raises(BadInput, match="damaged"):
        PreparedDataset(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"isocentre_lps_mm": [1, 2]}', '{"status": "rejected"}'])
def test_a_damaged_case(prepared: Path, tmp_path: Path, text: str) -> None:
    for name in ("dataset.json", "splits.json"):
        (tmp_path / name).write_text((prepared / name).read_text())
    folder = tmp_path / "cases" / "phantom-0"
    folder.mkdir(parents=True)
    (folder / "case.json").write_text(text)
    with pytest.raises(BadInput, match="phantom-0: not a prepared case"):
        PreparedDataset(tmp_path).case("phantom-0")


@pytest.fixture
def copied(prepared: Path, tmp_path: Path) -> Path:
    """The prepared dataset, to damage."""
    return Path(shutil.copytree(prepared, tmp_path / "copied"))


@pytest.mark.parametrize(
    "splits",
    [
        ["phantom-0"],
        {"validation": "phantom-0"},
        {"validation": [["phantom-0"]]},
        {"validation": None},
        {"validation": ["phantom-9"]},
        {"validation": ["rejected"]},
        {"train": ["phantom-0"], "validation": ["../cases/phantom-1"]},
        {"validation": [".."]},
        {"validation": [""]},
        {"validation": [0]},
        {"train": ["phantom-0"], "validation": ["phantom-0"]},
        {"train": ["phantom-0", "phantom-0"]},
    ],
)
def test_splits_name_usable_cases_alone(copied: Path, splits: object) -> None:
    """A name is a path to read from and to write to: it must not lead elsewhere."""
    info = json.loads((copied / "dataset.json").read_text())
    info["cases"]["rejected"] = {"status": "rejected", "reason": "no lungs found"}
    (copied / "dataset.json").write_text(json.dumps(info))
    PreparedDataset(copied)
    (copied / "splits.json").write_text(json.dumps(splits))
    with pytest.raises(BadInput, match=r"splits\.json is damaged .*; prepare it again"):
        PreparedDataset(copied)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("voxels", 10**12, "voxels: Input should be less than or equal to 512"),
        ("voxels", "64", "voxels: Input should be a valid integer"),
        ("cube_mm", float("nan"), "NaN is no number"),
        ("cube_mm", 1e999, "Infinity is no number"),
        ("views", [], "views: List should have at least 1 item"),
        ("views", [{"angle": 0.0, "mirrored": False}] * 2, "a view occurs twice"),
        ("views", [{"angle": 0.0, "mirrored": "no"}], "'no' is neither true nor false"),
        ("geometry", {"pixels": 10**9}, "source_axis_mm"),
        ("cases", {"..": {"status": "ok", "sha256": "0" * 64}}, "'..' is no plain file name"),
        ("cases", {"": {"status": "ok", "sha256": "0" * 64}}, "'' is no plain file name"),
        ("cases", {"a/b": {"status": "rejected"}}, "'a/b' is no plain file name"),
        ("cases", {"phantom-0": {"status": "ok"}}, "a case has no checksum"),
        ("cases", [], "cases: Input should be a valid dictionary"),
    ],
)
def test_a_dataset_that_cannot_be(copied: Path, key: str, value: object, words: str) -> None:
    info = json.loads((copied / "dataset.json").read_text())
    (copied / "dataset.json").write_text(json.dumps(info | {key: value}))
    with pytest.raises(BadInput, match=re.escape(words)):
        PreparedDataset(copied)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("isocentre_lps_mm", [float("nan"), 0, 0], "NaN is no number"),
        ("isocentre_lps_mm", [0, 0], "isocentre_lps_mm: List should have at least 3 items"),
        ("isocentre_lps_mm", [1e30, 0, 0], "isocentre_lps_mm.0: Input should be less"),
        ("context_grid", HUGE, "10000 × 10000 × 10000 voxels are too many for a scan"),
        ("sha256", 5, "sha256: Input should be a valid string"),
    ],
)
def test_a_case_that_cannot_be(copied: Path, key: str, value: object, words: str) -> None:
    path = copied / "cases" / "phantom-0" / "case.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(BadInput, match=re.escape(words)):
        PreparedDataset(copied).case("phantom-0")


def test_files_of_a_case_that_cannot_be(copied: Path) -> None:
    folder = copied / "cases" / "phantom-0"
    case = PreparedDataset(copied).case("phantom-0")
    shape = case.context_grid.shape
    np.save(folder / "context.npy", np.full(shape, "a"))
    with pytest.raises(BadInput, match="values of type <U1, not int16"):
        _ = case.context
    stack = np.full(case.xrays_shape, np.nan, np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(stack), str(folder / "xrays.mha"))
    with pytest.raises(BadInput, match="NaN or infinite"):
        _ = case.xrays
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 9, 9), np.float32)), str(folder / "xrays.mha"))
    with pytest.raises(BadInput, match=r"\(2, 9, 9\) values, not"):
        _ = case.xrays
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((9, 9, 9), np.int16)), str(folder / "ct.nii.gz"))
    with pytest.raises(BadInput, match=r"\(9, 9, 9\) values, not"):
        _ = case.truth
    (folder / "context.npy").unlink()
    os.mkfifo(folder / "context.npy")
    with pytest.raises(BadInput, match=r"context\.npy cannot be read"):
        _ = case.context


def test_a_case_prepared_with_other_settings_since(copied: Path, phantom_scans: Path) -> None:
    """An interrupted second run leaves such a case: its files are good, but not what dataset.json describes."""
    settings = PreparationSettings(64, VIEWS, Geometry.preset("x2ct", 64))
    prepare_case(phantom_scans / "phantom-1.nii.gz", copied / "cases" / "phantom-1", settings)
    dataset = PreparedDataset(copied)
    dataset.case("phantom-0")
    with pytest.raises(BadInput, match=r"phantom-1: not the case .*dataset\.json .*; run raylift data prepare again"):
        dataset.case("phantom-1")


@pytest.mark.parametrize("harm", ["missing", "empty", "cut", "another shape"])
@pytest.mark.parametrize(("name", "part"), [("ct.nii.gz", "truth"), ("xrays.mha", "xrays"), ("context.npy", "context")])
def test_a_damaged_file_of_a_case(copied: Path, name: str, part: str, harm: str) -> None:
    case = PreparedDataset(copied).case("phantom-0")
    path = case.folder / name
    content = path.read_bytes()
    path.unlink()
    if harm == "empty":
        path.touch()
    elif harm == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif harm == "another shape":
        flat = sitk.GetImageFromArray(np.zeros((1, 64, 64), np.float32))
        if name == "context.npy":
            np.save(path, np.zeros((4, 4, 4), np.int16))
        else:
            sitk.WriteImage(flat, str(path))
    with pytest.raises(BadInput, match=rf"phantom-0: its {name} cannot be read .*; run raylift data prepare again"):
        getattr(case, part)
