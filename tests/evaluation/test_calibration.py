"""Uncertainty against errors whose distribution is known."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from helpers import Known, describe_tiny, known_weights
from raylift.data.dataset import PreparedDataset
from raylift.errors import BadInput
from raylift.evaluation.calibration import BINS, calibrate, coverage, draw_reliability, offsets, tally
from raylift.evaluation.evaluation import evaluate
from raylift.geometry import VolumeGrid
from raylift.images.volume import Volume
from raylift.reconstruction.reconstructor import Reconstructor

GRID = VolumeGrid.cube((0, 0, 0), 320, 64)
MEAN_ERROR = 0.05  # of the known network, in units of the window


class Uncertain(nn.Module):
    """About half of the window everywhere, give or take `MEAN_ERROR`."""

    def forward(self, channels: Tensor) -> Tensor:
        raw = math.log(math.expm1(MEAN_ERROR - 1e-3)) + 3  # the inverse of `Mapping.finish`
        # What is added sees to it that no two errors are the same.
        return torch.stack([0.5 + 0.01 * channels[:, 0], torch.full_like(channels[:, 0], raw)], 1)


def uncertain(cases: tuple[str, ...] = (), uncertainty: dict[str, Any] | None = None) -> Reconstructor:
    info = describe_tiny(cases=cases)
    info["recipe"]["network"]["uncertainty"] = True
    if uncertainty:
        info["uncertainty"] = uncertainty
    return Reconstructor(known_weights(Uncertain(), info), "cpu")


@pytest.fixture(scope="module")
def dataset(prepared: Path) -> PreparedDataset:
    return PreparedDataset(prepared)


def drawn(count: int = 200_000) -> tuple[np.ndarray, np.ndarray]:
    """Absolute errors of normal distributions of many widths, and the widths."""
    generator = np.random.default_rng(0)
    deviations = generator.uniform(5, 200, count)
    return np.abs(generator.normal(0, deviations)), deviations


def test_normal_errors_are_covered_as_their_intervals_say() -> None:
    covered = coverage(*drawn())
    assert covered == pytest.approx({"coverage_50": 0.5, "coverage_80": 0.8, "coverage_95": 0.95}, abs=0.005)


def test_twice_the_uncertainty_covers_more() -> None:
    errors, deviations = drawn()
    # ± 0.674 of twice the deviation is ± 1.349 of it.
    assert coverage(errors, 2 * deviations)["coverage_50"] == pytest.approx(0.8227, abs=0.005)


def test_air_is_left_out_and_the_truth_is_clipped() -> None:
    truth = np.full(GRID.shape, -1000.0)
    truth[0], truth[1] = 1500.0, 40.0
    made = np.full(GRID.shape, -960.0)
    made[2] = -900.0
    sigma = np.full(GRID.shape, 7.0)
    sigma[0] = 9.0
    errors, deviations = offsets(*(Volume(array.astype(np.float32), GRID) for array in (made, sigma, truth)))
    layer = 64 * 64
    assert len(errors) == 3 * layer
    assert errors.sum() == pytest.approx(layer * (1960 + 1000 + 100))
    assert deviations.sum() == pytest.approx(layer * (9 + 7 + 7))


def test_a_reconstruction_says_its_uncertainty_in_hu(dataset: PreparedDataset) -> None:
    xrays = dataset.case("phantom-0").xrays
    made = uncertain()(np.array(xrays))
    assert made.uncertainty is not None
    assert made.uncertainty.grid == made.volume.grid
    # A Laplace distribution of mean absolute value b has the standard deviation √2 b; the window is 2000 HU.
    assert made.uncertainty.array == pytest.approx(math.sqrt(2) * 2000 * MEAN_ERROR, rel=1e-4)
    assert made.trust.endswith("expected to be off by 141 HU (standard deviation)")
    assert f"differ from the X-rays by {made.reprojection_error:.1%}, " in made.trust
    again = uncertain(uncertainty={"factor": 3.0})(np.array(xrays)).uncertainty
    assert again is not None
    assert again.array == pytest.approx(3 * made.uncertainty.array)


def test_calibration_makes_the_uncertainty_as_large_as_the_errors(dataset: PreparedDataset, tmp_path: Path) -> None:
    found = calibrate(uncertain(("phantom-0",)), dataset, "validation")
    assert found.cases == ["phantom-2"]
    calibrated = uncertain(("phantom-0",), found.model_dump())
    case = dataset.case("phantom-2")
    made = calibrated(np.array(case.xrays))
    assert made.uncertainty is not None
    errors, deviations = offsets(made.volume, made.uncertainty, case.truth)
    assert float(np.sqrt(np.mean(errors**2))) == pytest.approx(float(np.sqrt(np.mean(deviations**2))), rel=1e-3)
    assert coverage(errors, deviations, found.widths) == pytest.approx(
        {"coverage_50": 0.5, "coverage_80": 0.8, "coverage_95": 0.95}, abs=0.01
    )
    # Calibrating again changes nothing, and evaluation reports the same.
    assert calibrate(calibrated, dataset, "validation").factor == pytest.approx(found.factor, rel=1e-4)
    model = evaluate(calibrated, dataset, "validation", "hu", tmp_path)[0]
    assert model.extra["coverage_80"] == pytest.approx(0.8, abs=0.01)
    assert (tmp_path / "reliability.png").stat().st_size > 5000
    assert "reliability.png" in (tmp_path / "report.md").read_text()


def test_seen_patients_do_not_calibrate(dataset: PreparedDataset) -> None:
    with pytest.raises(BadInput, match=r"was trained on phantom-2; calibrate on other patients"):
        calibrate(uncertain(("phantom-2",)), dataset, "validation")


def test_weights_without_uncertainty_are_refused(dataset: PreparedDataset) -> None:
    weights = known_weights(Known(0.5), describe_tiny(cases=("phantom-0",)))
    with pytest.raises(BadInput, match="predicts no uncertainty"):
        calibrate(Reconstructor(weights, "cpu"), dataset, "validation")


def test_the_curve_of_a_right_uncertainty_is_the_diagonal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn_lines: list[tuple[np.ndarray, np.ndarray]] = []
    monkeypatch.setattr(
        "raylift.evaluation.calibration.save_figure",
        lambda figure, path: drawn_lines.extend((line.get_xdata(), line.get_ydata()) for line in figure.axes[0].lines),
    )
    draw_reliability(tally(*drawn()), tmp_path / "curve.png", "uncertainty")
    said, found = drawn_lines[-1]
    assert len(said) == BINS
    assert found == pytest.approx(said, rel=0.05)
