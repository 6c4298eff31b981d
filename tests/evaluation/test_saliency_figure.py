"""The figure of how much volumes depend on each view: its numbers, and what it refuses."""

import csv
from pathlib import Path

import pytest

from helpers import Known, describe_tiny, known_weights
from raylift.data.dataset import PreparedDataset
from raylift.errors import BadInput
from raylift.evaluation.saliency_figure import draw_dependence
from raylift.geometry import Geometry
from raylift.reconstruction.reconstructor import Reconstructor


def reconstructor(geometry: Geometry | None = None) -> Reconstructor:
    # 3 parts of the first view, 1 of the second.
    return Reconstructor(known_weights(Known(0.0, 3.0, 1.0), describe_tiny(geometry=geometry)), "cpu")


def test_files_and_shares(prepared: Path, tmp_path: Path) -> None:
    dataset = PreparedDataset(prepared)
    shares = draw_dependence(reconstructor(), dataset, dataset.cases("all"), tmp_path, "title")
    assert list(shares) == ["phantom-0", "phantom-1", "phantom-2"]
    for frontal, lateral in shares.values():
        assert frontal / lateral == pytest.approx(3, rel=0.05)
    assert {path.name for path in tmp_path.iterdir()} == {"gradients.png", "gradients.svg", "gradients.csv"}
    with (tmp_path / "gradients.csv").open() as file:
        rows = {row["case"]: float(row["ap"]) for row in csv.DictReader(file)}
    assert rows == pytest.approx({name: frontal for name, (frontal, _) in shares.items()})


def test_xrays_of_another_unit(prepared: Path, tmp_path: Path) -> None:
    dataset = PreparedDataset(prepared)
    with pytest.raises(BadInput, match="the weights are for"):
        draw_dependence(reconstructor(Geometry.preset("x2ct", 64)), dataset, dataset.cases("all"), tmp_path, "title")
    assert not list(tmp_path.iterdir())
