"""One cell of a study: a row with a seed, which is trained under the budget and scored on every set."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raylift.about import __version__
from raylift.config.files import load_recipe
from raylift.config.recipe import Recipe
from raylift.data.dataset import PreparedDataset
from raylift.evaluation.methods import CaseMethod, from_weights, not_learned, score_case
from raylift.geometry import View
from raylift.model.weights import load_weights
from raylift.parallel.cases import Progress
from raylift.reconstruction.reconstructor import Reconstructor
from raylift.storage.atomic import write_json
from raylift.studies.definitions import Row
from raylift.studies.results import CellResult, read_study_file
from raylift.training.run import train

TRIAL_SECONDS, TRIAL_STEPS = 45.0, 40  # the trial that measures the time of a step ends at whichever comes first
FRONTAL_AND_LATERAL = (View(0.0), View(90.0))  # for methods that are not trained


@dataclass(frozen=True)
class Budget:
    """The training budget of each row; exactly one of the two is given.

    Args:
        minutes: wall-clock time of a training in minutes.
        samples: number of pairs that g is trained on.
    """

    minutes: float | None = None
    samples: int | None = None


@dataclass(frozen=True)
class CaseSet:
    """A set of cases to score on.

    Args:
        name: the set's name in tables.
        dataset: the prepared dataset that holds the cases.
        split: the dataset's split: train, validation or all.
    """

    name: str
    dataset: PreparedDataset
    split: str


@dataclass(frozen=True)
class Cell:
    """A row of a study with a seed.

    Args:
        row: the method to train or to compute.
        seed: seed of the training.
        folder: folder of the studies; the training run goes to `runs/`, the scores go to `results/`.
    """

    row: Row
    seed: int
    folder: Path

    @property
    def key(self) -> str:
        """The name of the cell's files without the seed; rows of any study that compute the same have the same key."""
        if not self.row.recipe:
            return self.row.method
        recipe = self.recipe()
        content = recipe.model_dump_json(exclude={"name": True, "train": {"seed"}, "network": {"checkpointing"}})
        digest = hashlib.sha256(content.encode()).hexdigest()[:8]
        return f"{recipe.network.name}-{recipe.lift}-{recipe.objective.name}-{digest}"

    @property
    def run(self) -> Path:
        """The folder of the training run."""
        return self.folder / "runs" / self.key / f"seed-{self.seed}"

    @property
    def result(self) -> Path:
        """The path of the file with the cell's scores."""
        return self.folder / "results" / f"{self.key}-seed-{self.seed}.json"

    def recipe(self) -> Recipe:
        """Return the row's recipe with the cell's seed."""
        return load_recipe(self.row.recipe, [*self.row.changes, f"train.seed={self.seed}"])


def with_steps(recipe: Recipe, steps: int) -> Recipe:
    """Return the recipe with another number of steps, and validation at the end only.

    The learning rate begins to fall after the same share of the steps, and the weights are averaged over the same
    share of them.
    """
    section = recipe.train
    changes = {
        "steps": steps,
        "decay_from": round(section.decay_from * steps / section.steps),
        "warmup": min(section.warmup, steps // 4),
        "ema_decay": section.ema_decay ** (section.steps / steps),
        "validate_every": steps,
    }
    return recipe.model_copy(update={"train": section.model_copy(update=changes)})


def steps_within(budget: Budget, cell: Cell, data: PreparedDataset, progress: Progress) -> int:
    """Return how many steps of a cell's recipe the budget allows.

    Where the budget is in minutes, a short trial measures the time of a step. It is made once per row, so that all
    seeds of the row take the same number of steps.
    """
    recipe = cell.recipe()
    if budget.samples is not None:
        section = recipe.train
        pairs_per_step = section.batch_size * section.accumulate * recipe.objective.updates_of_g
        return max(1, round(budget.samples / pairs_per_step))
    assert budget.minutes is not None
    steps_file = cell.run.parent / "steps.json"
    if not steps_file.exists():
        seconds = _seconds_per_step(cell, recipe, data, progress)
        write_json({"seconds_per_step": seconds, "steps": max(1, round(60 * budget.minutes / seconds))}, steps_file)
    return int(json.loads(steps_file.read_text())["steps"])


def _seconds_per_step(cell: Cell, recipe: Recipe, data: PreparedDataset, progress: Progress) -> float:
    """Measure the median time of a training step in a short trial.

    Returns:
        The time in seconds.
    """
    times: list[float] = []

    def record(step: int, steps: int, numbers: dict[str, float]) -> None:
        times.append(time.monotonic())
        progress(f"{cell.row.label}, measuring the time of a step", step, steps)
        if len(times) > 3 and times[-1] - times[0] > TRIAL_SECONDS:
            raise _TrialEnded

    trial = cell.run.parent / "trial"
    shutil.rmtree(trial, ignore_errors=True)
    try:
        train(with_steps(recipe, TRIAL_STEPS), data.folder, trial, progress=record)
    except _TrialEnded:
        pass
    finally:
        shutil.rmtree(trial, ignore_errors=True)
    # The first step also warms up caches, and is left out.
    return statistics.median(b - a for a, b in itertools.pairwise(times[1:]))


class _TrialEnded(Exception):
    """Raised to end a trial when its time is over."""


def compute(cell: Cell, budget: Budget, data: PreparedDataset, sets: list[CaseSet], protocol: str,
            progress: Progress) -> None:  # fmt: skip
    """Train a cell unless it is trained, score it on the sets that lack its scores, and write its result.

    Args:
        cell: the row and its seed.
        budget: the training's budget.
        data: the dataset to train on, its `train` split.
        sets: the sets to score on.
        protocol: name of the scores' protocol.
        progress: called with a note, the steps done and their number.
    """
    result = read_study_file(cell.result, CellResult) if cell.result.exists() else CellResult()
    if not cell.row.recipe and result.raylift != __version__:
        # Another version may compute a method that is not trained in another way.
        result = CellResult(raylift=__version__)
    missing = [test for test in sets if test.name not in result.scores.get(protocol, {})]
    if not missing:
        return
    if cell.row.recipe:
        method, training = _train_cell(cell, budget, data, progress)
        result = result.model_copy(update=training)
    else:
        method = not_learned(cell.row.method, data, FRONTAL_AND_LATERAL)
    result.seed = cell.seed
    for test in missing:
        cases, scores = test.dataset.cases(test.split), {}
        for number, case in enumerate(cases, 1):
            scores[case.name] = score_case(method(test.dataset, case), case, protocol)
            progress(f"{cell.row.label} on {test.name}", number, len(cases))
        result.scores.setdefault(protocol, {})[test.name] = scores
        write_json(result.model_dump(exclude_none=True), cell.result)


def _train_cell(
    cell: Cell, budget: Budget, data: PreparedDataset, progress: Progress
) -> tuple[CaseMethod, dict[str, Any]]:
    """Train a cell, or load its weights if it is trained already.

    Returns:
        The trained method, and what the result file says about the training.
    """
    recipe = with_steps(cell.recipe(), steps_within(budget, cell, data, progress))
    if not (cell.run / "time.json").exists():  # the last file that a run writes
        resume = (cell.run / "recipe.yaml").exists()
        run = train(recipe, data.folder, cell.run, resume=resume,
                    progress=lambda step, steps, numbers: progress(cell.row.label, step, steps))  # fmt: skip
        write_json({"minutes": run.seconds / 60}, cell.run / "time.json")
    weights = load_weights(cell.run)
    return from_weights(Reconstructor(weights)), {
        "recipe": recipe.model_dump(mode="json"),
        "budget": asdict(budget),
        "parameters": sum(p.numel() for p in weights.lifted_network.network.parameters()),
        "g_updates": recipe.train.steps * recipe.objective.updates_of_g,
        "minutes": json.loads((cell.run / "time.json").read_text())["minutes"],
    }
