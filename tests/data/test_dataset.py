"""The prepared folder as it is read back: what it says, and every way in which it can be damaged."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from raylift.data.dataset import PreparedDataset
from raylift.data.prepare import Settings, prepare_case
from raylift.errors import BadInput, WrongUsage
from raylift.geometry import Geometry, View

VIEWS = (View(0.0), View(90.0))


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
    ],
)
def test_splits_name_usable_cases_alone(copied: Path, splits: object) -> None:
    """A name is a path to read from and to write to: it must not lead elsewhere, whatever dataset.json says of it."""
    info = json.loads((copied / "dataset.json").read_text())
    info["cases"] |= dict.fromkeys(("../cases/phantom-1", "..", ""), info["cases"]["phantom-0"])
    info["cases"]["rejected"] = {"status": "rejected", "reason": "no lungs found"}
    (copied / "dataset.json").write_text(json.dumps(info))
    PreparedDataset(copied)
    (copied / "splits.json").write_text(json.dumps(splits))
    with pytest.raises(BadInput, match=r"splits\.json is damaged .*; prepare it again"):
        PreparedDataset(copied)


def test_a_case_prepared_with_other_settings_since(copied: Path, phantom_scans: Path) -> None:
    """An interrupted second run leaves such a case: its files are good, but not what dataset.json describes."""
    settings = Settings(64, VIEWS, Geometry.preset("x2ct", 64))
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
