"""What a run measures, followed from outside: in TensorBoard, and in MLflow where that is asked for."""

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

from torch.utils.tensorboard import SummaryWriter

from raylift.about import code_version
from raylift.config.recipe import Recipe
from raylift.data.dataset import PreparedDataset
from raylift.errors import WrongUsage
from raylift.storage.atomic import write_json

RUN = "run.json"
EXPERIMENT = "raylift"


def name_run(recipe: Recipe, dataset: PreparedDataset, folder: Path, step: int, processes: int) -> dict[str, Any]:
    """Say in `run.json` what is trained there on what by which code, each time that it begins or goes on.

    Returns:
        Its content: "recipe" and "data", each with its name and a SHA-256, and "launches", each with the code's
        version, the step that it began at, the number of processes, and the time.
    """
    path = folder / RUN
    settings = json.dumps(recipe.model_dump(mode="json"), sort_keys=True)
    told: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"launches": []}
    told["recipe"] = {"name": recipe.name, "sha256": hashlib.sha256(settings.encode()).hexdigest()}
    told["data"] = {
        "name": dataset.folder.name,
        "sha256": dataset.fingerprint,
        "source": dataset.info["source"],
        "licence": dataset.info["licence"],
        "cases": len(dataset.names(recipe.data.split)),
    }
    now = datetime.now(UTC).isoformat(timespec="seconds")
    launch = {"code": code_version(), "from_step": step, "processes": processes, "time": now}
    told["launches"] = [*told["launches"], launch]
    write_json(told, path)
    return told


def import_mlflow() -> Any:
    """The package. Raises WrongUsage if it is not installed."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nobody is told that somebody trains
    try:
        import mlflow
    except ImportError:
        raise WrongUsage("--mlflow: MLflow is not installed: pip install 'raylift[mlflow]'") from None
    return mlflow


class Tracker:
    """Where numbers go.

    Args:
        folder: of the run, for TensorBoard's events; MLflow's run is noted in its `run.json`.
        told: its content.
        recipe: of the run.
        step: steps that are done; what was written of later ones is dropped.
        mlflow: whether to tell MLflow too, at MLFLOW_TRACKING_URI, in the experiment MLFLOW_EXPERIMENT_NAME or
            "raylift".

    Raises:
        WrongUsage: MLflow is not installed, or does not answer.
    """

    def __init__(self, folder: Path, told: dict[str, Any], recipe: Recipe, step: int, mlflow: bool) -> None:
        self.board = SummaryWriter(str(folder), purge_step=step + 1)
        self.board.add_text("run", f"```json\n{json.dumps(told, indent=2)}\n```", step)
        self.mlflow = _Mlflow(folder, told, recipe) if mlflow else None

    def write(self, numbers: dict[str, float], step: int) -> None:
        """Numbers of a step."""
        for name, value in numbers.items():
            self.board.add_scalar(name, value, step)
        if self.mlflow is not None:
            self.mlflow.write(numbers, step)

    def close(self, whole: bool) -> None:
        """All is written, of the whole run or of one that failed."""
        self.board.close()
        if self.mlflow is not None:
            self.mlflow.close(whole)


class _Mlflow:
    """A run of MLflow, which goes on where the folder's run does."""

    def __init__(self, folder: Path, told: dict[str, Any], recipe: Recipe) -> None:
        self.mlflow = mlflow = import_mlflow()
        try:
            if not mlflow.environment_variables.MLFLOW_EXPERIMENT_NAME.get():
                mlflow.set_experiment(EXPERIMENT)
            run = mlflow.start_run(told.get("mlflow_run"), run_name=folder.name)
            mlflow.set_tags(
                {
                    "recipe": f"{told['recipe']['name']} {told['recipe']['sha256'][:12]}",
                    "data": f"{told['data']['name']} {told['data']['sha256'][:12]}",
                    "code": told["launches"][-1]["code"],
                }
            )
            if "mlflow_run" not in told:
                mlflow.log_params(_flat(recipe.model_dump(mode="json")))
        except Exception as error:  # of a run that is active too
            raise WrongUsage(f"--mlflow: {error}; say in MLFLOW_TRACKING_URI where MLflow is") from None
        write_json({**told, "mlflow_run": run.info.run_id}, folder / RUN)

    def write(self, numbers: dict[str, float], step: int) -> None:
        with self._going_on():
            self.mlflow.log_metrics(numbers, step=step)

    def close(self, whole: bool) -> None:
        with self._going_on():
            self.mlflow.end_run("FINISHED" if whole else "FAILED")

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """A training does not end because a server did; the folder has all numbers."""
        try:
            yield
        except Exception as error:
            warnings.warn(f"MLflow does not answer: {error}", stacklevel=2)


def _flat(settings: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Settings with their parts' names, as --set takes them: "train.lr"."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return flat
