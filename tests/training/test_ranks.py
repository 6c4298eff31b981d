"""Processes that train together: the same optimisation as one alone, and no harm when one of them dies."""

import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning_fabric import Fabric
from tiny_recipes import KINDS, content, recipe

from raylift.config.files import load_recipe
from raylift.data.dataset import PreparedDataset
from raylift.errors import WrongUsage
from raylift.training.hardware import processes
from raylift.training.run import Run, train

RUNNER = Path(__file__).with_name("tiny_run.py")
STEPS = 20


def start_two(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`raylift` in two processes, started by torchrun."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, str(RUNNER), *map(str, arguments)]
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


@pytest.fixture(scope="module")
def alone(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process, with the objective whose Sinkhorn divergences see the whole batch."""
    folder = tmp_path_factory.mktemp("alone")
    train(load_recipe(write_recipe(folder, "paper")), tiny, folder / "run")
    return folder / "run"


def test_two_processes_share_each_batch(tiny: Path, alone: Path, tmp_path: Path) -> None:
    made = start_two("train", write_recipe(tmp_path, "paper"), "--data", tiny, "-o", tmp_path / "run")
    assert made.returncode == 0, made.stderr
    check_same(tmp_path / "run", alone)


def test_a_death_ends_all_and_one_process_goes_on(tiny: Path, alone: Path, tmp_path: Path) -> None:
    written, run = write_recipe(tmp_path, "paper"), tmp_path / "run"
    made = start_two("--die-at", 7, "train", written, "--data", tiny, "-o", run)
    assert made.returncode != 0
    assert not (run / "weights.safetensors").exists()
    assert rows(run)[-1]["step"] == 7
    train(load_recipe(written), tiny, run, resume=True)
    check_same(run, alone)


@pytest.mark.parametrize("kind", ["any views", "paper"])
def test_shares_make_the_batch(tiny: Path, tmp_path: Path, kind: str) -> None:
    run = Run(recipe(*KINDS[kind]), PreparedDataset(tiny), tmp_path / "run")
    whole = run.pairs.batch(3, 4)
    shares = [replace(run.pairs, rank=rank, ranks=2).batch(3, 4) for rank in range(2)]
    assert torch.equal(torch.cat([share.xrays for share in shares]), whole.xrays)
    assert torch.equal(torch.cat([share.truth for share in shares]), whole.truth)
    assert sum((share.patients for share in shares), ()) == whole.patients
    assert {(share.views, share.geometry) for share in shares} == {(whole.views, whole.geometry)}


def test_batches_that_cannot_be_shared(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fabric, "world_size", 2)
    with pytest.raises(WrongUsage, match="2 processes cannot share batches of 3 pairs evenly"):
        Run(recipe(batch_size=3), PreparedDataset(tiny), tmp_path / "run")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (1, 1)),
        ({"LOCAL_WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "2"}, (4, 2)),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2"}, (4, 2)),
    ],
)
def test_processes_are_those_of_the_launcher(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: tuple[int, int]
) -> None:
    for name in ("LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert processes() == expected
