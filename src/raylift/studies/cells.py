"""One cell of a study: a row and a seed, trained under the budget if it is to be, and scored on every set."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raylift.about import __version__
from raylift.config.files import load_recipe
from raylift.config.recipe import Recipe
from raylift.data.dataset import PreparedDataset
from raylift.errors import BadInput
from raylift.evaluation.methods import CaseMethod, from_weights, not_learned, score_case
from raylift.geometry import View
from raylift.model.weights import load_weights
from raylift.reconstruction.reconstructor import Reconstructor
from raylift.storage.atomic import write_json
from raylift.studies.definitions import Row
from raylift.training.run import train

TRIAL_SECONDS, TRIAL_STEPS = 45.0, 40  # the trial that tells how long a step takes ends at either
TWO_VIEWS = (View(0.0), View(90.0))  # of methods that are not trained

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Budget:
    """What each row may spend: minutes of wall-clock, or pairs that g is trained on; exactly one of them."""

    minutes: float | None = None
    samples: int | None = None


@dataclass(frozen=True)
class CaseSet:
    """Cases to score on: a split of a prepared dataset, under the name that tables give it."""

    name: str
    dataset: PreparedDataset
    split: str


@dataclass(frozen=True)
class Cell:
    """A row and a seed of a study in its folder.

    Args:
        row: what is trained or computed.
        seed: of the training.
        folder: of the studies; the run goes to `runs/`, what it scored to `results/`.
    """

    row: Row
    seed: int
    folder: Path

    @property
    def key(self) -> str:
        """What is trained or computed, as a name: rows, of whatever study, that do the same have the same."""
        if not self.row.recipe:
            return self.row.method
        recipe = self.recipe()
        what = recipe.model_dump_json(exclude={"name": True, "train": {"seed"}, "network": {"checkpointing"}})
        digest = hashlib.sha256(what.encode()).hexdigest()[:8]
        return f"{recipe.network.name}-{recipe.lift}-{recipe.objective.name}-{digest}"

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.folder / "runs" / self.key / f"seed-{self.seed}"

    @property
    def result(self) -> Path:
        """What the cell scored."""
        return self.folder / "results" / f"{self.key}-seed-{self.seed}.json"

    def recipe(self) -> Recipe:
        """The row's recipe with the cell's seed."""
        return load_recipe(self.row.recipe, [*self.row.changes, f"train.seed={self.seed}"])


def with_steps(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with another number of steps, validated once.

    The fall of the rate begins at the same share of them, and the weights are averaged over the same share.
    """
    train_part = recipe.train
    changed = {
        "steps": steps,
        "decay_from": round(train_part.decay_from * steps / train_part.steps),
        "warmup": min(train_part.warmup, steps // 4),
        "ema_decay": train_part.ema_decay ** (train_part.steps / steps),
        "validate_every": steps,
    }
    return recipe.model_copy(update={"train": train_part.model_copy(update=changed)})


def steps_within(budget: Budget, cell: Cell, data: PreparedDataset, progress: Progress) -> int:
    """How many steps of a cell's recipe the budget allows; by the median of a short trial, if it is in minutes.

    The trial is made once per row, so that all its seeds take as many steps.
    """
    recipe = cell.recipe()
    if budget.samples is not None:
        part = recipe.train
        return max(1, round(budget.samples / (part.batch_size * part.accumulate * recipe.objective.updates_of_g)))
    assert budget.minutes is not None
    kept = cell.run.parent / "steps.json"
    if not kept.exists():
        times: list[float] = []

        def tick(step: int, steps: int, numbers: dict[str, float]) -> None:
            times.append(time.monotonic())
            progress(f"{cell.row.label}, measuring its steps", step, steps)
            if len(times) > 3 and times[-1] - times[0] > TRIAL_SECONDS:
                raise _Enough

        trial = cell.run.parent / "trial"
        shutil.rmtree(trial, ignore_errors=True)
        try:
            train(with_steps(recipe, TRIAL_STEPS), data.folder, trial, progress=tick)
        except _Enough:
            pass
        finally:
            shutil.rmtree(trial, ignore_errors=True)
        # The first step warms caches up.
        seconds = statistics.median(b - a for a, b in itertools.pairwise(times[1:]))
        write_json({"seconds_per_step": seconds, "steps": max(1, round(60 * budget.minutes / seconds))}, kept)
    return int(json.loads(kept.read_text())["steps"])


class _Enough(Exception):
    """Ends a trial."""


def read_json(path: Path) -> dict[str, Any]:
    """What a study has noted. Raises BadInput if it is damaged."""
    try:
        noted: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadInput(path, f"damaged ({error})", "delete it to have it made again") from None
    return noted


def compute(cell: Cell, budget: Budget, data: PreparedDataset, sets: list[CaseSet], protocol: str,
            progress: Progress) -> None:  # fmt: skip
    """Train the cell if it is not, score it where it is not, and write its result.

    Args:
        cell: what to do.
        budget: for the training.
        data: trained on, its `train` split.
        sets: scored on.
        protocol: of the scores.
        progress: called with a note, steps done and their number.
    """
    about: dict[str, Any] = read_json(cell.result) if cell.result.exists() else {"scores": {}}
    if not cell.row.recipe and about.get("raylift") != __version__:
        about = {"raylift": __version__, "scores": {}}  # what is not trained may be computed otherwise by now
    missing = [test for test in sets if test.name not in about["scores"].get(protocol, {})]
    if not missing:
        return
    if cell.row.recipe:
        method, trained = _trained(cell, budget, data, progress)
        about |= trained
    else:
        method = not_learned(cell.row.method, data, TWO_VIEWS)
    about["seed"] = cell.seed
    for test in missing:
        cases, scored = test.dataset.cases(test.split), {}
        for number, case in enumerate(cases, 1):
            scored[case.name] = score_case(method(test.dataset, case), case, protocol)
            progress(f"{cell.row.label} on {test.name}", number, len(cases))
        about["scores"].setdefault(protocol, {})[test.name] = scored
        write_json(about, cell.result)


def _trained(
    cell: Cell, budget: Budget, data: PreparedDataset, progress: Progress
) -> tuple[CaseMethod, dict[str, Any]]:
    recipe = with_steps(cell.recipe(), steps_within(budget, cell, data, progress))
    if not (cell.run / "time.json").exists():  # written last
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
