import csv
import json

import numpy as np
import pytest

import raylift
from raylift.errors import WrongUsage
from raylift.evaluation.clinical import clinical_measures
from raylift.evaluation.report import CLINICAL_HEADINGS, NUMBER_FORMATS, CaseResult, summarise, write_report

CASES = [
    CaseResult("a", {"ssim": 0.5, "psnr": 20.0}, extra={"reprojection_error": 0.01}),
    CaseResult("b", {"ssim": 0.7, "psnr": 24.0}, extra={"reprojection_error": 0.03}),
    CaseResult("a", {"ssim": 0.2, "psnr": 15.0}, "mean volume"),
    CaseResult("b", {"ssim": 0.4, "psnr": 17.0}, "mean volume"),
]


def test_summary_by_hand():
    summary = summarise(CASES)
    assert list(summary) == ["model", "mean volume"]
    ssim = summary["model"]["ssim"]
    assert ssim["mean"] == pytest.approx(0.6)
    assert ssim["sd"] == pytest.approx(0.02**0.5)  # ±0.1 about the mean, divided by n - 1 = 1
    assert ssim["interval"] == pytest.approx([0.6 - 1.27062, 0.6 + 1.27062], abs=1e-4)  # t = 12.7062, 0.1 is one error
    assert summary["mean volume"]["psnr"]["n"] == 2
    assert "reprojection_error" not in summary["mean volume"]


def test_summary_of_a_single_case_claims_no_spread():
    row = summarise(CASES[:1])["model"]["psnr"]
    assert (row["mean"], row["sd"], row["interval"]) == (20.0, None, None)


def test_files_are_written_and_parse(tmp_path):
    path = write_report(CASES, "hu", tmp_path / "new", "Two methods", ["weights: none"])
    assert sorted(p.name for p in path.parent.iterdir()) == ["cases.csv", "report.md", "summary.json"]

    with (path.parent / "cases.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["method"]) for row in rows] == [(c.name, c.method) for c in CASES]
    assert float(rows[1]["psnr"]) == 24
    assert rows[2]["reprojection_error"] == ""

    summary = json.loads((path.parent / "summary.json").read_text())
    assert summary["protocol"]["name"] == "hu"
    assert summary["protocol"]["description"]
    assert summary["n"] == 2
    assert summary["raylift"] == raylift.__version__
    assert summary["methods"]["model"]["psnr"]["mean"] == 22

    text = path.read_text(encoding="utf-8")
    assert text.startswith("# Two methods\n")
    assert "weights: none" in text
    assert "not a medical device" in text
    assert "![" not in text


def test_tables_name_the_protocol_and_are_rectangular(tmp_path):
    text = write_report(CASES, "paper", tmp_path).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    headers = [line for line in lines if "SSIM" in line]
    assert len(headers) == 3
    assert all("paper" in line for line in headers)
    assert any(line.startswith("| model | 2 | 0.600 ± 0.141 [-0.671, 1.871] | 22.00 ±") for line in lines)


def test_clinical_measures_have_tables_of_their_own(tmp_path):
    measures = {"reprojection_error": 0.01, "vif": 0.31, "lung_volume_error": -0.052, "heart_width_error_mm": -7.5}
    cases = [
        CaseResult("a", {"ssim": 0.5}, extra=measures),
        CaseResult("b", {"ssim": 0.6}, extra={"vif": 0.33}),
        CaseResult("a", {"ssim": 0.2}, "cgls", {"vif": 0.1}),
    ]
    blocks = write_report(cases, "hu", tmp_path).read_text(encoding="utf-8").split("\n\n")
    scores, clinical, differences, each_score, each_clinical = (
        block.splitlines() for block in blocks if block.startswith("|")
    )
    assert scores[0] == "| Protocol hu | Cases | SSIM ↑ | reprojection error |"
    assert differences[0] == "| Protocol hu, minus model | Cases | SSIM ↑ | reprojection error |"
    assert differences[2:] == ["| cgls | 1 | -0.300 |  |"]
    assert each_score[0] == "| Case (protocol hu) | Method | SSIM ↑ | reprojection error |"
    measured = "Lung volume error → 0 | Heart width error (mm) → 0 | VIF ↑ |"
    assert clinical[0] == f"| Clinical measures | Cases | {measured}"
    assert clinical[2:] == ["| model | 2 | -5.2% | -7.5 | 0.320 ± 0.014 [0.193, 0.447] |", "| cgls | 1 |  |  | 0.100 |"]
    assert each_clinical[0] == f"| Case (clinical measures) | Method | {measured}"
    assert each_clinical[3] == "| b | model |  |  | 0.330 |"
    assert json.loads((tmp_path / "summary.json").read_text())["methods"]["model"]["heart_width_error_mm"]["n"] == 1


def test_every_clinical_measure_has_a_heading_and_digits():
    volume = np.where(np.random.default_rng(0).random((48, 48, 48)) < 0.5, -100.0, 200.0)
    assert set(clinical_measures(volume, volume, (5.0, 5.0, 5.0))) < set(CLINICAL_HEADINGS)
    assert set(CLINICAL_HEADINGS) < set(NUMBER_FORMATS)


def test_a_bar_in_a_name_does_not_break_the_table(tmp_path):
    text = write_report([CaseResult("a|b", {"ssim": 1.0})], "hu", tmp_path).read_text(encoding="utf-8")
    assert "a\\|b" in text


def test_the_images_given_are_shown_and_no_others(tmp_path):
    folder = tmp_path / "report"
    (folder / "images").mkdir(parents=True)
    images = [folder / "images" / "case a.png", tmp_path / "preview.png"]
    for image in (*images, folder / "of an earlier evaluation.png"):
        image.write_bytes(b"")
    text = write_report(CASES, "hu", folder, images=images).read_text(encoding="utf-8")
    assert "(<images/case a.png>)" in text
    assert "(<../preview.png>)" in text
    assert text.count("![") == 2


def test_what_cannot_be_reported_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="psnr of c by model is nan"):
        write_report([CaseResult("c", {"psnr": float("nan")})], "hu", tmp_path)
    with pytest.raises(ValueError, match="at least one case"):
        write_report([], "hu", tmp_path)
    with pytest.raises(WrongUsage):
        write_report(CASES, "uh", tmp_path)
    assert not list(tmp_path.iterdir())
