"""Lifts × objectives at equal wall-clock: each cell trains anew and is scored on the validation cases.

    python benchmarks/lifts_objectives.py PREPARED --minutes 10 -o lifts-objectives

Every cell has the network, data and learning rate schedule of recipes/cpu.yaml; the number of its steps is what fits
into the minutes, by the time of its first steps. The paper's recipe at a size for two cores stands beside them. A cell
that is finished is not trained again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import statistics
import time
from pathlib import Path

from raylift.data.dataset import PreparedDataset
from raylift.evaluation.evaluate import mean_volume
from raylift.evaluation.protocols import score
from raylift.recipe import Recipe
from raylift.recipe_files import load_recipe
from raylift.training.loop import Means, train
from raylift.volumes import hu_to_unit

RECIPES = Path(__file__).parents[1] / "recipes"
# Sinkhorn divergences need more than two volumes; a step is ten updates, so fewer of them warm up.
PAPER_OBJECTIVE = ["objective={name: paper}", "train.batch_size=4", "train.d_lr=1e-4", "train.warmup=5"]
TRIAL_STEPS = 3


def cells() -> dict[str, Recipe]:
    """Recipes by name."""
    made = {}
    for lift in ("repeat", "backproject"):
        made[f"{lift}, paper"] = load_recipe(RECIPES / "cpu.yaml", [f"lift={lift}", *PAPER_OBJECTIVE])
        made[f"{lift}, paired"] = load_recipe(RECIPES / "cpu.yaml", [f"lift={lift}"])
    made["backproject, paired with transport"] = load_recipe(RECIPES / "cpu.yaml", ["objective.transport=1.0"])
    made["paper-cpu.yaml (repeat, paper, offline pairs)"] = load_recipe(RECIPES / "paper-cpu.yaml")
    return made


def with_steps(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with another number of steps, validated at the last alone."""
    changed = recipe.train.model_copy(update={"steps": steps, "validate_every": steps})
    return recipe.model_copy(update={"train": changed})


def fitting_steps(recipe: Recipe, data: Path, folder: Path, minutes: float) -> int:
    """How many steps fit, from the median time of those of a short trial."""
    times: list[float] = []
    train(
        with_steps(recipe, TRIAL_STEPS * 10 // recipe_updates(recipe)),
        data,
        folder / "trial",
        progress=lambda step, steps, numbers: times.append(time.monotonic()),
    )
    shutil.rmtree(folder / "trial")
    seconds = statistics.median(b - a for a, b in itertools.pairwise(times))
    return max(1, round(60 * minutes / seconds))


def recipe_updates(recipe: Recipe) -> int:
    """Updates of g in a step."""
    return recipe.objective.g_updates if recipe.objective.name == "paper" else 1


def main() -> None:
    """Train the cells and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/lifts-objectives"))
    parser.add_argument("--minutes", type=float, default=10.0)
    args = parser.parse_args()
    dataset = PreparedDataset(args.data)
    rows = {}
    baseline, means = mean_volume(dataset), Means()
    for case in dataset.cases("validation"):
        means.add(score(baseline, hu_to_unit(case.truth.array), "hu"))
    rows["mean volume"] = {"updates": 0, "minutes": 0.0, **means.take()}
    for name, recipe in cells().items():
        folder = args.output / name.split(" (")[0].replace(", ", "-").replace(" ", "-")
        result = folder / "result.json"
        if not result.exists():
            shutil.rmtree(folder, ignore_errors=True)
            steps = fitting_steps(recipe, args.data, folder, args.minutes)
            run = train(with_steps(recipe, steps), args.data, folder)
            row = {"updates": steps * recipe_updates(recipe), "minutes": run.seconds / 60}
            row |= {key.removeprefix("validation/"): value for key, value in run.validate().items()}
            result.write_text(json.dumps(row))
        rows[name] = json.loads(result.read_text())
    print("| lift, objective | updates of g | minutes | SSIM ↑ | PSNR (dB) ↑ | MSE ↓ | MAE (HU) ↓ |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, row in rows.items():
        print(
            f"| {name} | {row['updates']} | {row['minutes']:.1f} | {row['ssim']:.3f} | {row['psnr']:.2f} "
            f"| {row['mse']:.4f} | {row['mae_hu']:.0f} |"
        )


if __name__ == "__main__":
    main()
