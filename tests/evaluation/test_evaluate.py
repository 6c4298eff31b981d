"""Weights against prepared cases: the baseline, the numbers and the files, by hand."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers import Known, describe_tiny, known_weights
from raylift.data.dataset import PreparedDataset
from raylift.errors import BadInput, WrongUsage
from raylift.evaluation import evaluation as module
from raylift.evaluation.evaluation import BASELINE, evaluate
from raylift.evaluation.methods import mean_volume, score_case
from raylift.evaluation.report import CaseResult
from raylift.geometry import Geometry
from raylift.reconstruction.reconstructor import Reconstructor


def constant(
    value: float, *views: float, geometry: Geometry | None = None, cases: tuple[str, ...] = ()
) -> Reconstructor:
    info = describe_tiny(views or (0.0, 90.0), geometry, cases=cases)
    return Reconstructor(known_weights(Known(value), info), "cpu")


def unit(dataset: PreparedDataset, name: str) -> np.ndarray:
    return np.clip((dataset.case(name).truth.array.astype(float) + 1000) / 2000, 0, 1)


@pytest.fixture(scope="module")
def dataset(prepared: Path) -> PreparedDataset:
    return PreparedDataset(prepared)


@pytest.fixture(scope="module")
def report(dataset: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[CaseResult]]:
    folder = tmp_path_factory.mktemp("report")
    return folder, evaluate(constant(0.25, cases=("phantom-0",)), dataset, "validation", "hu", folder)


def test_mean_volume_is_that_of_the_training_cases(dataset: PreparedDataset) -> None:
    mean, volumes = mean_volume(dataset), [unit(dataset, f"phantom-{k}") for k in (0, 1)]
    np.testing.assert_allclose(mean(dataset.case("phantom-2")), (volumes[0] + volumes[1]) / 2, atol=1e-6)
    # A patient's own volume is no part of what it is compared with.
    np.testing.assert_allclose(mean(dataset.case("phantom-0")), volumes[1], atol=1e-6)


def test_scores_by_hand(dataset: PreparedDataset, report: tuple[Path, list[CaseResult]]) -> None:
    _, results = report
    assert [(r.name, r.method) for r in results] == [("phantom-2", "model"), ("phantom-2", BASELINE)]
    truth = unit(dataset, "phantom-2")
    mean = mean_volume(dataset)(dataset.case("phantom-2"))
    for result, volume in zip(results, (np.full_like(truth, 0.25), mean), strict=True):
        mse = np.mean((volume - truth) ** 2)
        assert result.metrics["mse"] == pytest.approx(mse, rel=1e-5)
        assert result.metrics["psnr"] == pytest.approx(-10 * np.log10(mse), abs=1e-4)
        assert result.metrics["mae_hu"] == pytest.approx(2000 * np.mean(np.abs(volume - truth)), rel=1e-5)
    assert 0 < results[0].extra["reprojection_error"] < 10
    # Clinical measures stand beside the scores of both; a constant of -500 HU has no lungs, edges or information.
    assert (results[0].extra["dice_lungs"], results[0].extra["sharpness"]) == (0, 0)
    assert "heart_width_error_mm" not in results[0].extra
    bones = np.where(truth >= 0.575, truth, np.nan)
    assert results[1].extra["mae_bone_hu"] == pytest.approx(2000 * np.nanmean(np.abs(mean - bones)), rel=1e-4)
    assert 0.3 < results[1].extra["dice_lungs"] < 1
    assert "reprojection_error" not in results[1].extra


def test_files(report: tuple[Path, list[CaseResult]]) -> None:
    folder, results = report
    assert sorted(path.name for path in folder.iterdir()) == [
        "cases",
        "cases.csv",
        "report.md",
        "summary.json",
    ]
    with (folder / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["ssim"]) for row in rows] == pytest.approx([r.metrics["ssim"] for r in results])
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["protocol"]["name"] == "hu"
    assert summary["methods"]["model"]["mse"]["mean"] == pytest.approx(results[0].metrics["mse"])
    assert not [note for note in summary["notes"] if "trained on" in note]


def test_warns_of_cases_the_weights_were_trained_on(dataset: PreparedDataset, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    reconstructor = constant(0.25, cases=("phantom-0", "phantom-1", "elsewhere"))
    (tmp_path / "of-an-earlier-evaluation.png").write_bytes(b"")
    results = evaluate(reconstructor, dataset, "all", "paper", tmp_path, lambda *done: seen.append(done))
    assert len(results) == 6
    assert seen == [(f"phantom-{k}", k + 1, 3) for k in range(3)]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["protocol"]["name"] == "paper"
    assert summary["n"] == 3
    assert any("trained on 2 of these cases" in note for note in summary["notes"])
    page = (tmp_path / "report.md").read_text()
    assert "trained on 2 of these cases" in page
    assert [line for line in page.splitlines() if "![" in line] == [
        f"![cases/phantom-{k}/montage.png](<cases/phantom-{k}/montage.png>)" for k in range(3)
    ]


def test_what_does_not_fit(dataset: PreparedDataset, tmp_path: Path) -> None:
    for wrong in (constant(0.25, 0.0, 45.0), constant(0.25, geometry=Geometry.preset("x2ct", 64))):
        with pytest.raises(BadInput):
            evaluate(wrong, dataset, "validation", "hu", tmp_path / "wrong")
    with pytest.raises(WrongUsage, match="'validatoin' is no split"):
        evaluate(constant(0.25), dataset, "validatoin", "hu", tmp_path / "report")
    with pytest.raises(WrongUsage, match="paper"):
        evaluate(constant(0.25), dataset, "validation", "papre", tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_a_damaged_case_is_left_out_and_named(dataset: PreparedDataset, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(dataset.folder, damaged)
    (damaged / "cases" / "phantom-1" / "xrays.mha").write_bytes(b"damaged")
    results = evaluate(constant(0.25), PreparedDataset(damaged), "all", "hu", tmp_path / "report")
    assert {result.name for result in results} == {"phantom-0", "phantom-2"}
    page = (tmp_path / "report" / "report.md").read_text()
    assert "The mean volume is without" not in page
    assert re.search(r"Left out: phantom-1: .*xrays\.mha cannot be read", page)
    (damaged / "splits.json").write_text(json.dumps({"train": ["phantom-0"], "validation": ["phantom-1"]}))
    with pytest.raises(BadInput, match=r"phantom-1: .*no case can be scored"):
        evaluate(constant(0.25), PreparedDataset(damaged), "validation", "hu", tmp_path / "other")
    assert not (tmp_path / "other" / "report.md").exists()


def test_a_damaged_training_case_is_no_part_of_the_mean(dataset: PreparedDataset, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(dataset.folder, damaged)
    shutil.copytree(damaged / "cases" / "phantom-2", damaged / "cases" / "phantom-3")
    info = json.loads((damaged / "dataset.json").read_text())
    info["cases"]["phantom-3"] = info["cases"]["phantom-2"]
    (damaged / "dataset.json").write_text(json.dumps(info))
    splits = {"train": ["phantom-0", "phantom-1", "phantom-3"], "validation": ["phantom-2"]}
    (damaged / "splits.json").write_text(json.dumps(splits))
    (damaged / "cases" / "phantom-1" / "ct.nii.gz").write_bytes(b"damaged")
    evaluate(constant(0.25), PreparedDataset(damaged), "validation", "hu", tmp_path / "report")
    page = (tmp_path / "report" / "report.md").read_text()
    assert "The mean volume is without phantom-1, which cannot be read." in page
    mean = mean_volume(PreparedDataset(damaged))
    volumes = [unit(dataset, name) for name in ("phantom-0", "phantom-2")]
    np.testing.assert_allclose(mean(dataset.case("phantom-2")), sum(volumes) / 2, atol=1e-6)


def test_scored_cases_are_not_scored_again(
    dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate(constant(0.25), dataset, "validation", "hu", tmp_path)
    scored: list[str] = []
    monkeypatch.setattr(module, "score_case", lambda v, case, p: scored.append(case.name) or score_case(v, case, p))
    assert evaluate(constant(0.25), dataset, "validation", "hu", tmp_path) == first
    assert scored == []
    (tmp_path / "cases" / "phantom-2" / "montage.png").unlink()
    assert evaluate(constant(0.25), dataset, "validation", "hu", tmp_path) == first
    assert set(scored) == {"phantom-2"}
    scored.clear()
    evaluate(constant(0.25), dataset, "validation", "paper", tmp_path)
    assert set(scored) == {"phantom-2"}


def test_refined_volumes_agree_with_their_xrays(dataset: PreparedDataset, tmp_path: Path) -> None:
    plain, refined = (
        evaluate(constant(0.25), dataset, "validation", "hu", tmp_path / str(refine), refine=refine)[0]
        for refine in (False, True)
    )
    assert "error_with_surroundings" not in plain.extra
    assert refined.extra["error_with_surroundings"] < 0.05 < plain.extra["reprojection_error"]
    assert refined.metrics["psnr"] > plain.metrics["psnr"]
    assert "Volumes were refined." in (tmp_path / "True" / "report.md").read_text()
