"""Processes that train together: the same optimisation as one alone, and no harm when one of them dies."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_loop import KINDS, content

RUNNER = Path(__file__).with_name("tiny_run.py")
STEPS = 20


def start(processes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`raylift` in one process, or in some that torchrun starts."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), str(RUNNER), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)


def write_recipe(folder: Path, kind: str, **train: Any) -> Path:
    path = folder / f"{kind.replace(' ', '-')}-{train.get('steps', STEPS)}.yaml"
    settings = {
        "lr": 8e-5,
        "eps": 1e-3,
        "steps": STEPS,
        "log_every": 1,
        "batch_size": 2,
        "validate_every": STEPS,
    } | train
    path.write_text(yaml.safe_dump(content(*KINDS[kind], **settings)))
    return path


def rows(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def check_same(found: Path, expected: Path) -> None:
    found_rows, expected_rows = rows(found), rows(expected)
    assert len(found_rows) == len(expected_rows) == STEPS
    for a, b in zip(found_rows, expected_rows, strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("kind", ["paper", "any views"])
def test_two_processes_share_each_batch(tiny: Path, tmp_path: Path, kind: str) -> None:
    recipe = write_recipe(tmp_path, kind)
    for processes in (1, 2):
        made = start(processes, "train", recipe, "--data", tiny, "-o", tmp_path / str(processes))
        assert made.returncode == 0, made.stderr
    check_same(tmp_path / "2", tmp_path / "1")


def test_a_death_ends_all_and_one_process_goes_on(tiny: Path, tmp_path: Path) -> None:
    recipe, run = write_recipe(tmp_path, "paper"), tmp_path / "run"
    made = start(2, "--die-at", 7, "train", recipe, "--data", tiny, "-o", run)
    assert made.returncode != 0
    assert not (run / "weights.safetensors").exists()
    assert rows(run)[-1]["step"] == 7
    made = start(1, "train", recipe, "--data", tiny, "-o", run, "--resume")
    assert made.returncode == 0, made.stderr
    made = start(1, "train", recipe, "--data", tiny, "-o", tmp_path / "alone")
    assert made.returncode == 0, made.stderr
    check_same(run, tmp_path / "alone")


def test_batches_that_cannot_be_shared(tiny: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, "paired", batch_size=3)
    made = start(2, "train", recipe, "--data", tiny, "-o", tmp_path / "run")
    assert made.returncode != 0
    assert "2 processes cannot share batches of 3 pairs evenly" in made.stderr
