"""What is told of a run: to TensorBoard, to MLflow, and in its folder."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from raylift.about import code_version
from raylift.config.files import parse_recipe
from raylift.config.recipe import Recipe
from raylift.data.dataset import PreparedDataset
from raylift.errors import WrongUsage
from raylift.training.run import train

mlflow = pytest.importorskip("mlflow")


def recipe(steps: int) -> Recipe:
    settings = {
        "name": "tiny",
        "views": [0, 90],
        "network": {"name": "tiny", "feature_size": 4},
        "objective": {"name": "paired"},
        "data": {"pairs": "offline", "xray_pixels": 16},
        "train": {"steps": steps, "batch_size": 2, "log_every": 1, "precision": "32-true", "lr": 0.01, "warmup": 0},
    }
    return parse_recipe(settings, "test")


@pytest.fixture
def tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of MLflow's in a folder."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(f"file://{tmp_path / 'mlruns'}")
    return tmp_path / "run"


def rows(folder: Path) -> list[dict[str, Any]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_names_its_data_recipe_and_code(tiny: Path, tmp_path: Path) -> None:
    for steps in (1, 2):
        train(recipe(steps), tiny, tmp_path, resume=True)
    told, data = json.loads((tmp_path / "run.json").read_text()), PreparedDataset(tiny)
    assert told["recipe"]["name"] == "tiny"
    assert told["data"] == {
        "name": tiny.name, "sha256": data.fingerprint, "source": data.info.source, "licence": "CC0-1.0",
        "cases": len(data.splits["train"]),
    }  # fmt: skip
    assert [(one["code"], one["from_step"], one["processes"]) for one in told["launches"]] == [
        (code_version(), 0, 1), (code_version(), 1, 1),
    ]  # fmt: skip


def test_tensorboard_has_what_the_table_has(tiny: Path, tmp_path: Path) -> None:
    train(recipe(3), tiny, tmp_path)
    events = EventAccumulator(str(tmp_path)).Reload()
    losses = {event.step: event.value for event in events.Scalars("loss")}
    assert losses == pytest.approx({int(row["step"]): float(row["loss"]) for row in rows(tmp_path)})
    assert PreparedDataset(tiny).fingerprint in str(events.Tensors("run/text_summary"))


def test_mlflow_has_what_the_table_has_and_goes_on(tiny: Path, tracked: Path) -> None:
    train(recipe(2), tiny, tracked, mlflow=True)
    train(recipe(4), tiny, tracked, resume=True, mlflow=True)
    client = mlflow.MlflowClient()
    (experiment,) = [e for e in client.search_experiments() if e.name == "raylift"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    history = client.get_metric_history(run.info.run_id, "loss")
    assert {one.step: one.value for one in history} == pytest.approx(
        {int(row["step"]): float(row["loss"]) for row in rows(tracked)}
    )
    assert len(history) == 4
    assert run.data.params["train.lr"] == "0.01"
    assert run.data.tags["code"] == code_version()
    assert run.data.tags["data"].endswith(PreparedDataset(tiny).fingerprint[:12])


def test_an_mlflow_that_does_not_answer(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    with pytest.raises(WrongUsage, match=r"--mlflow: .*MLFLOW_TRACKING_URI"):
        train(recipe(1), tiny, tmp_path, mlflow=True)
