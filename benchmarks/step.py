"""A training step of a recipe: how long it takes, what its parts take, and the same in another checkout of Raylift.

    python benchmarks/step.py PREPARED                              # recipes/cpu.yaml
    python benchmarks/step.py PREPARED --against ../raylift-before  # in turns with another checkout
    python benchmarks/step.py PREPARED --recipe paper-cpu

Steps are those of `raylift train`, each checkout in a process of its own; the checkouts take turns, so that a busy
machine slows both. Times are medians over the steps of all rounds with their range, without the first three of a round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARM = 3
ROW = "{:<34} {:<28} {:>8}"


def measure(data: Path, recipe: str, steps: int) -> list[float]:
    """Seconds of each step of a training, in this process."""
    from raylift.config.files import find_packaged, load_recipe
    from raylift.training.run import train

    changes = [f"train.steps={steps + WARM + 1}", f"train.validate_every={10 * steps}", "train.warmup=1"]
    loaded = load_recipe(find_packaged(recipe), [*changes, f"train.decay_from={steps}"])
    moments: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        train(loaded, data, Path(folder) / "run", progress=lambda *_: moments.append(time.perf_counter()))
    moments.pop()  # the last step also writes the weights
    return [after - before for before, after in zip(moments[WARM - 1 :], moments[WARM:], strict=False)]


def parts(data: Path, recipe: str, steps: int) -> dict[str, list[float]]:
    """Seconds of the parts of g's update, in this process."""
    import torch

    from raylift.config.files import find_packaged, load_recipe
    from raylift.data.dataset import PreparedDataset
    from raylift.losses import GeneratorOutput
    from raylift.training.run import Run

    taken: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        taken.setdefault(name, []).append(time.perf_counter() - start)
        return result

    with tempfile.TemporaryDirectory() as folder:
        run = Run(load_recipe(find_packaged(recipe)), PreparedDataset(data), Path(folder) / "run")
        for _ in range(steps + WARM):
            batch = timed("pairs: warp, projection", run._next_batch)
            given = (batch.xrays, batch.views, batch.geometry, None, batch.patients)
            lifted = timed("lift", lambda given=given: run.model.inputs(*given))
            fake = timed("network, forward", lambda lifted=lifted: run.g(lifted).float())
            leaf = fake.detach().requires_grad_()
            made = GeneratorOutput(leaf, batch.truth, lifted, batch.views, batch.geometry)
            loss = timed(
                "objective, forward",
                lambda made=made: torch.stack(list(run.objective.generator_terms(made).values())).sum(),
            )
            timed("objective, backward", loss.backward)
            timed("network, backward", lambda fake=fake, leaf=leaf: run.fabric.backward(fake, gradient=leaf.grad))
            timed("optimizer", lambda: run._apply(run.g, run.g_optimizer))
            timed("average", lambda: run.average.update_parameters(run.model.network))
    return {name: seconds[WARM:] for name, seconds in taken.items()}


def spread(seconds: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(seconds):.3f} ({min(seconds):.3f} to {max(seconds):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="prepared dataset")
    parser.add_argument("--recipe", default="cpu")
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--steps", type=int, default=12, help="timed steps of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inner:
        print(json.dumps(measure(options.data, options.recipe, options.steps)))
        return
    here = Path(__file__).resolve().parent.parent
    checkouts = [here, *([options.against.resolve()] if options.against else [])]
    seconds: dict[Path, list[float]] = {checkout: [] for checkout in checkouts}
    command = [sys.executable, __file__, str(options.data), "--inner", "--recipe", options.recipe]
    for _ in range(options.rounds):
        for checkout in checkouts:
            environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
            done = subprocess.run(
                [*command, "--steps", str(options.steps)], env=environment, check=True, capture_output=True, text=True
            )
            seconds[checkout] += json.loads(done.stdout.splitlines()[-1])
    print(ROW.format(f"a step of {options.recipe}", "seconds: median (range)", "ratio"))
    base = statistics.median(seconds[checkouts[-1]])
    for checkout, times in seconds.items():
        print(ROW.format(checkout.name, spread(times), f"{base / statistics.median(times):.2f}×"))
    print()
    found = parts(options.data, options.recipe, options.steps)
    total = sum(statistics.median(times) for times in found.values())
    print(ROW.format("its parts, here", "seconds: median (range)", "share"))
    for name, times in found.items():
        print(ROW.format(name, spread(times), f"{statistics.median(times) / total:.0%}"))


if __name__ == "__main__":
    main()
