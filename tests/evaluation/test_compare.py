"""Methods side by side: each is what its name says, and what lies in a folder is put where it belongs."""

import csv
from pathlib import Path

import numpy as np
import pytest

from raylift.data.dataset import PreparedDataset
from raylift.errors import BadInput, WrongUsage
from raylift.evaluation.comparison import compare
from raylift.evaluation.methods import find_method, mean_volume
from raylift.evaluation.scores import score
from raylift.geometry import View, VolumeGrid
from raylift.images.hounsfield import hu_to_normalised
from raylift.images.volume import Volume
from raylift.io.volumes import write_volume

VIEWS = (View(0.0), View(90.0))


@pytest.fixture(scope="module")
def theirs(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The true volume on another grid: larger, finer, and turned to another order of axes."""
    folder = tmp_path_factory.mktemp("theirs")
    case = PreparedDataset(prepared).case("phantom-2")
    truth = case.truth
    larger = truth.resample(VolumeGrid.cube(truth.grid.centre, 360.0, 120))
    write_volume(larger, folder / "phantom-2.mha")
    return folder


def test_a_table_and_a_picture_of_each(prepared: Path, theirs: Path, tmp_path: Path) -> None:
    dataset = PreparedDataset(prepared)
    methods = {name: find_method(what, dataset, VIEWS) for name, what in (("mean", "mean"), ("other", str(theirs)))}
    seen: list[tuple[str, int, int]] = []
    results = compare(methods, dataset, "validation", "hu", tmp_path, lambda *args: seen.append(args))
    assert seen == [("mean", 1, 2), ("other", 2, 2)]
    assert {path.name for path in tmp_path.iterdir()} == {
        "cases.csv", "summary.json", "report.md", "phantom-2.png", "phantom-2.svg",
    }  # fmt: skip
    with (tmp_path / "cases.csv").open() as file:
        assert [row["method"] for row in csv.DictReader(file)] == ["mean", "other"]
    truth = hu_to_normalised(dataset.case("phantom-2").truth.array.astype(np.float32))
    assert results[0].metrics == pytest.approx(score(mean_volume(dataset)(dataset.case("phantom-2")), truth), rel=1e-3)
    # Resampled twice, but in its place: nothing else comes near.
    assert results[1].metrics["psnr"] > 30
    assert results[1].extra["dice_lungs"] > 0.95 > results[0].extra["dice_lungs"]
    assert "Clinical measures" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize("name", ["cgls", "sart-tv"])
def test_iterative_methods_beat_air(name: str, prepared: Path) -> None:
    dataset = PreparedDataset(prepared)
    case = dataset.case("phantom-2")
    truth = hu_to_normalised(case.truth.array.astype(np.float32))
    volume = find_method(name, dataset, VIEWS)(dataset, case)
    assert volume.grid == case.truth.grid
    assert score(hu_to_normalised(volume.array), truth)["mse"] < 0.5 * score(np.zeros_like(truth), truth)["mse"]


def test_what_is_no_method(prepared: Path, tmp_path: Path) -> None:
    dataset = PreparedDataset(prepared)
    with pytest.raises(WrongUsage, match="neither a file, nor a folder, nor one of mean, cgls, sart-tv"):
        find_method("sart", dataset, VIEWS)
    with pytest.raises(BadInput, match="neither weights nor volumes"):
        find_method(str(tmp_path), dataset, VIEWS)


def test_a_case_that_is_missing_from_a_folder(prepared: Path, tmp_path: Path) -> None:
    dataset = PreparedDataset(prepared)
    write_volume(Volume(np.zeros((8, 8, 8), np.int16), VolumeGrid.cube((0, 0, 0), 80, 8)), tmp_path / "x.mha")
    method = find_method(str(tmp_path), dataset, VIEWS)
    with pytest.raises(BadInput, match="no volume of the case phantom-2"):
        method(dataset, dataset.case("phantom-2"))
