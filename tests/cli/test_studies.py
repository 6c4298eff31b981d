"""The comparing commands: what they print and write, and how wrong names are answered."""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import random_weights
from raylift.cli import main

Raylift = Callable[..., tuple[int, str, str]]


@pytest.fixture
def raylift(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Raylift:
    """The command in this process: exit code, output, errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["raylift", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_weights(tmp_path_factory.mktemp("weights"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["study", "methodz"], ["'methodz' is no study", "nearest is 'methods'"]),
        (["study", "methods", "--only", "X2CT-GUN"], ["'X2CT-GUN' is no row", "nearest is 'X2CT-GAN'"]),
        (["study", "lift", "--minutes", "1", "--samples", "9"], ["give one of them"]),
        (["study", "lift", "--set", "covid"], ["--set covid", "NAME=SPLIT"]),
        (["study", "lift", "--protocol", "papr"], ["'papr' is no protocol", "'paper'"]),
        (["study", "lift", "--set", "x=vaildation"], ["'vaildation' is no split", "nearest is 'validation'"]),
        (["study", "lift", "--set", "../x=train"], ["no / or"]),
        (["train", "recipes/cpv.yaml"], ["recipes/cpv.yaml: no such recipe", "'cpu'"]),
        (["compare", "mean"], ["NAME=WHAT"]),
        (["compare", "x=nowhere"], ["nowhere: neither a file, nor a folder, nor one of mean, cgls, sart-tv"]),
    ],
)
def test_names_that_do_not_exist(
    arguments: list[str], words: list[str], raylift: Raylift, prepared: Path, tmp_path: Path
) -> None:
    code, _, errors = raylift(*arguments, "--data", prepared, "-o", tmp_path / "out")
    assert code == 2
    assert all(word in errors for word in words), errors
    assert len(errors.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_compare_prints_its_table(raylift: Raylift, prepared: Path, weights: Path, tmp_path: Path) -> None:
    code, text, _ = raylift("compare", f"ours={weights}", "mean=mean", "--data", prepared, "-o", tmp_path / "out")
    assert code == 0
    assert "| ours | 1 |" in text
    assert "| mean | 1 |" in text
    assert (tmp_path / "out" / "phantom-2.svg").stat().st_size > 10_000


def test_explain(raylift: Raylift, prepared: Path, weights: Path, tmp_path: Path) -> None:
    code, text, _ = raylift("explain", weights, "--data", prepared, "-o", tmp_path / "out", "--json")
    assert code == 0
    found = json.loads(text)
    assert found["views"] == ["ap", "lateral-right"]
    assert sum(found["shares"]["phantom-2"]) == pytest.approx(1)
    with (tmp_path / "out" / "gradients.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["ap"]) == pytest.approx(found["shares"]["phantom-2"][0])
    assert {"gradients.png", "gradients.svg"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_a_study_of_what_is_not_trained(raylift: Raylift, prepared: Path, tmp_path: Path) -> None:
    command = ("study", "methods", "--data", prepared, "-o", tmp_path / "out", "--only", "mean training volume",
               "--set", "held out=validation", "--set", f"elsewhere={prepared}:all", "--protocol", "paper")  # fmt: skip
    code, text, _ = raylift(*command)
    assert code == 0
    assert "Protocol **paper**" in text
    assert "## held out (1 patients)" in text
    assert "## elsewhere (3 patients)" in text
    again = raylift(*command)
    assert again[:2] == (code, text)
