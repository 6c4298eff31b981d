"""The record of a run: what is trained on what, and what is measured, in its folder, TensorBoard and MLflow."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from raylift.about import code_version
from raylift.config.recipe import Recipe
from raylift.data.dataset import PreparedDataset
from raylift.errors import WrongUsage
from raylift.plugins.extras import import_extra
from raylift.storage.atomic import write_json
from raylift.training.metrics import MetricsTable

RUN = "run.json"
EXPERIMENT = "raylift"


def name_run(recipe: Recipe, dataset: PreparedDataset, folder: Path, step: int, processes: int) -> dict[str, Any]:
    """Write to `run.json` what is trained on what by which code, each time that a run begins or goes on.

    Returns:
        Its content: "recipe" and "data", each with its name and a SHA-256, and "launches", each with the code's
        version, the step that it began at, the number of processes, and the time.
    """
    path = folder / RUN
    settings = json.dumps(recipe.model_dump(mode="json"), sort_keys=True)
    facts: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"launches": []}
    facts["recipe"] = {"name": recipe.name, "sha256": hashlib.sha256(settings.encode()).hexdigest()}
    facts["data"] = {
        "name": dataset.folder.name,
        "sha256": dataset.fingerprint,
        "source": dataset.info.source,
        "licence": dataset.info.licence,
        "cases": len(dataset.names(recipe.data.split)),
    }
    now = datetime.now(UTC).isoformat(timespec="seconds")
    launch = {"code": code_version(), "from_step": step, "processes": processes, "time": now}
    facts["launches"] = [*facts["launches"], launch]
    write_json(facts, path)
    return facts


def import_mlflow() -> Any:
    """Return the package MLflow.

    Raises:
        WrongUsage: it is not installed.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nobody is told that somebody trains
    return import_extra("mlflow", "mlflow", "--mlflow")


class Tracker:
    """Writes what a run measures: to CSV tables, to MLflow where asked, to TensorBoard where it is installed.

    Args:
        folder: of the run, for `metrics.csv`, `timing.csv` and TensorBoard's events; MLflow's run is noted in its
            `run.json`.
        facts: the content of `run.json`.
        recipe: of the run.
        step: number of finished steps; what was written of later ones is dropped.
        mlflow: write to MLflow too, at MLFLOW_TRACKING_URI, in the experiment MLFLOW_EXPERIMENT_NAME or "raylift".

    Raises:
        WrongUsage: MLflow is not installed, or does not answer.
    """

    def __init__(self, folder: Path, facts: dict[str, Any], recipe: Recipe, step: int, mlflow: bool) -> None:
        self.metrics = MetricsTable(folder / "metrics.csv", step)
        self.timing = MetricsTable(folder / "timing.csv", step)
        self.board = _tensorboard(folder, step + 1)
        if self.board is not None:
            self.board.add_text("run", f"```json\n{json.dumps(facts, indent=2)}\n```", step)
        self.mlflow = _Mlflow(folder, facts, recipe) if mlflow else None

    def write(self, numbers: dict[str, float], step: int, seconds: float) -> None:
        """Write the numbers of a step, finished after so many seconds of training."""
        self.metrics.write({"step": step, **numbers})
        self.timing.write({"step": step, "seconds": round(seconds, 2)})
        if self.board is not None:
            for name, value in numbers.items():
                self.board.add_scalar(name, value, step)
        if self.mlflow is not None:
            self.mlflow.write(numbers, step)

    def close(self, finished: bool) -> None:
        """End the record of a run that finished, or failed."""
        if self.board is not None:
            self.board.close()
        if self.mlflow is not None:
            self.mlflow.close(finished)


def _tensorboard(folder: Path, step: int) -> Any:
    """Return a writer of TensorBoard's events that drops those from a step on; None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step)


class _Mlflow:
    """A run of MLflow, which goes on where the folder's run does."""

    def __init__(self, folder: Path, facts: dict[str, Any], recipe: Recipe) -> None:
        self.mlflow = mlflow = import_mlflow()
        try:
            if not mlflow.environment_variables.MLFLOW_EXPERIMENT_NAME.get():
                mlflow.set_experiment(EXPERIMENT)
            run = mlflow.start_run(facts.get("mlflow_run"), run_name=folder.name)
            mlflow.set_tags(
                {
                    "recipe": f"{facts['recipe']['name']} {facts['recipe']['sha256'][:12]}",
                    "data": f"{facts['data']['name']} {facts['data']['sha256'][:12]}",
                    "code": facts["launches"][-1]["code"],
                }
            )
            if "mlflow_run" not in facts:
                mlflow.log_params(_flat(recipe.model_dump(mode="json")))
        except Exception as error:  # of a run that is active too
            raise WrongUsage(f"--mlflow: {error}; say in MLFLOW_TRACKING_URI where MLflow is") from None
        write_json({**facts, "mlflow_run": run.info.run_id}, folder / RUN)

    def write(self, numbers: dict[str, float], step: int) -> None:
        with self._going_on():
            self.mlflow.log_metrics(numbers, step=step)

    def close(self, finished: bool) -> None:
        with self._going_on():
            self.mlflow.end_run("FINISHED" if finished else "FAILED")

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """Warn where MLflow fails, and go on: the folder has all numbers.

        Yields:
            Nothing.
        """
        try:
            yield
        except Exception as error:
            warnings.warn(f"MLflow does not answer: {error}", stacklevel=2)


def _flat(settings: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Return settings by their full names, as --set takes them: "train.lr"."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return flat
