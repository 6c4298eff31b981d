"""A study's tables by hand arithmetic."""

import csv
import io
import math
from typing import Any

import numpy as np
import pytest

from raylift.evaluation.intervals import mean_interval
from raylift.studies.results import RowResult
from raylift.studies.tables import aggregate, best_rows, comma_separated, latex, markdown


def result(row: str, seed: int, ssim: list[float], mse: list[float], **more: Any) -> RowResult:
    cases = {f"case-{k}": {"ssim": s, "mse": m} for k, (s, m) in enumerate(zip(ssim, mse, strict=True))}
    return RowResult(row=row, seed=seed, protocol="hu", scores={"unseen": cases}, **more)


TRAINED = {"recipe": {}, "parameters": 3_900_000, "g_updates": 1200, "minutes": 4.04}
RESULTS = [
    result("a & b", 0, [0.4, 0.6], [0.02, 0.04], **TRAINED),
    result("a & b", 1, [0.5, 0.9], [0.01, 0.03], **TRAINED | {"minutes": 4.24}),
    result("mean", 0, [0.3, 0.3], [0.01, 0.02]),
]


def test_means_deviations_and_intervals() -> None:
    table = aggregate(RESULTS, "unseen")
    entry = table["a & b"]["ssim"]
    assert entry.mean == pytest.approx(0.6)  # of 0.5 and 0.7
    assert entry.std == pytest.approx(0.2 / math.sqrt(2))
    assert entry.interval == mean_interval([0.45, 0.75])  # each patient's mean over the seeds
    assert table["mean"]["mse"].std is None
    assert table["mean"]["mse"].mean == pytest.approx(0.015)


def test_a_set_that_some_rows_lack() -> None:
    other = RowResult(row="other", protocol="hu", scores={"elsewhere": {"x": {"ssim": 0.2, "mse": 0.1}}})
    extra = [*RESULTS, other]
    assert set(aggregate(extra, "unseen")) == {"a & b", "mean"}
    assert set(aggregate(extra, "elsewhere")) == {"other"}


def test_seeds_are_counted_by_set() -> None:
    first, second = (r.model_copy(deep=True) for r in RESULTS if r.row == "a & b")
    first.scores["later"] = first.scores["unseen"]
    page = markdown([first, second], ["unseen", "later"])
    rows = [line for line in page.splitlines() if line.startswith("| a & b")]
    assert [row.split(" | ")[1] for row in rows] == ["2", "1"]


def test_best_is_high_for_ssim_and_low_for_mse() -> None:
    assert best_rows(aggregate(RESULTS, "unseen")) == {"ssim": "a & b", "mse": "mean"}


def test_markdown() -> None:
    page = markdown(RESULTS, ["unseen"])
    assert "Protocol **hu**" in page
    row = next(line for line in page.splitlines() if line.startswith("| a & b"))
    assert row.startswith("| a & b | 2 | 3.9 M | 1,200 | 4.1 | **0.600 ± 0.141 [-1.306, 2.506]** |")
    mean = next(line for line in page.splitlines() if line.startswith("| mean"))
    assert mean.startswith("| mean | 1 |  |  |  | 0.300")
    assert "**0.0150" in mean


def test_differences_are_of_the_same_patients_and_seeds() -> None:
    others = [result("c", 0, [0.3, 0.5], [0.02, 0.04]), result("c", 1, [0.2, 0.6], [0.01, 0.03])]
    page = markdown([*RESULTS, *others], ["unseen"])
    differences = page.partition("### Differences from the best row on unseen")[2]
    row = next(line for line in differences.splitlines() if line.startswith("| c "))
    # SSIM minus that of a & b: −0.1 and −0.1, then −0.3 and −0.3; by patient −0.2 and −0.2.
    assert row.startswith("| c | -0.200 ± 0.141 [-0.200, -0.200] |")
    mean = next(line for line in differences.splitlines() if line.startswith("| mean "))
    assert mean.startswith("| mean | -0.300 [")  # one seed stands for all
    assert next(line for line in differences.splitlines() if line.startswith("| a & b ")).startswith("| a & b |  |")


def test_csv_holds_every_score() -> None:
    rows = list(csv.DictReader(io.StringIO(comma_separated(RESULTS))))
    assert len(rows) == 6
    values = [float(row["ssim"]) for row in rows if row["method"] == "a & b"]
    assert np.mean(values) == pytest.approx(0.6)
    assert {row["set"] for row in rows} == {"unseen"}


def test_latex_is_escaped_and_complete() -> None:
    text = latex(RESULTS, ["unseen"])
    assert r"a \& b & \textbf{0.600 $\pm$ 0.141 [-1.306, 2.506]} & 0.0250 $\pm$ 0.0071 [" in text
    assert r"unseen (2 patients), protocol hu; mean $\pm$ standard deviation over seeds [95\% interval" in text
    assert r"SSIM $\uparrow$ & MSE $\downarrow$" in text
    assert text.count(r"\begin{tabular}{lrr}") == text.count(r"\end{tabular}") == 1
