"""`raylift study`: the paper's comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raylift.cli.app import app
from raylift.cli.console import print_json, progress_bar, say
from raylift.cli.options import Data, Json, ProtocolOption
from raylift.errors import WrongUsage, known
from raylift.studies.definitions import STUDIES, study_of

if TYPE_CHECKING:
    from raylift.data.dataset import PreparedDataset
    from raylift.studies.cells import CaseSet

SETS_HELP = (
    "Cases to score on, repeatable: NAME=SPLIT of --data, or NAME=FOLDER:SPLIT of another prepared dataset; "
    "by default its training patients and its validation patients."
)


@app.command()
def study(
    name: Annotated[str, typer.Argument(help=f"{', '.join(STUDIES)}.")],
    data: Data,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of studies under one budget; finished cells "
                                                                "are kept.")],
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Wall-clock per trained row and seed; 25 by "
                                                                 "default.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Training pairs of g per row and seed, instead.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many trainings per row.")] = 5,
    set_: Annotated[list[str] | None, typer.Option("--set", help=SETS_HELP)] = None,
    protocol: ProtocolOption = "hu",
    only: Annotated[list[str] | None, typer.Option(help="Label of a row to train now, repeatable.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Of views, alignment and gradients: a recipe, by name or file, to "
                                               "ask instead of the paper's and ours.")] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Train, score and tabulate one of the paper's comparisons under an equal budget; run again to go on.

    Example: raylift study methods --data prepared -o studies --minutes 25 --seeds 1
    """
    from raylift.cli.parsing import check_output, prepare_tmpdir

    prepare_tmpdir(output)
    chosen = study_of(name, recipe)
    for label in only or ():
        known(label, [row.label for row in chosen.rows], f"row of the study {name}")
    if minutes is not None and samples is not None:
        raise WrongUsage("--minutes and --samples: give one of them")
    from raylift.data.dataset import PreparedDataset
    from raylift.evaluation.protocols import find_protocol
    from raylift.studies.cells import Budget
    from raylift.studies.run import run_study

    find_protocol(protocol)
    check_output(output, folder=True)
    dataset = PreparedDataset(data)
    sets = _parse_sets(set_ or ["training patients=train", "unseen=validation"], dataset)
    budget = Budget(samples=samples) if samples else Budget(minutes=minutes or 25.0)
    with progress_bar(name) as bar:
        outcome = run_study(chosen, dataset, output, budget, range(seeds), sets, protocol, only or (), bar)
    if as_json:
        results = [result.model_dump(exclude_none=True) for result in outcome.results]
        print_json({"results": results, "failures": outcome.failures})
    elif outcome.report is not None:
        print(outcome.report.read_text())
        say(f"{outcome.report}, and .csv and .tex beside it")
    for cell, reason in outcome.failures.items():
        say(f"{cell} failed: {reason}; run the command again to try it again")
    if outcome.failures:
        raise typer.Exit(1)


def _parse_sets(texts: list[str], dataset: PreparedDataset) -> list[CaseSet]:
    """Return the sets of cases that --set names, like "seen=train" or "covid=prepared-covid:all".

    Raises:
        WrongUsage: one is not NAME=SPLIT or NAME=FOLDER:SPLIT, or a name stands there twice.
    """
    from raylift.data.dataset import PreparedDataset
    from raylift.studies.cells import CaseSet

    sets: list[CaseSet] = []
    for text in texts:
        name, equals, what = text.partition("=")
        if not equals or not name or any(test.name == name for test in sets):
            raise WrongUsage(f"--set {text}: give it as NAME=SPLIT or NAME=FOLDER:SPLIT, each name once")
        if name in (".", "..") or set(name) & set("/\\"):
            raise WrongUsage(f"--set {text}: pictures are kept in folders named after the sets, so no / or \\ in them")
        folder, colon, split = what.rpartition(":")
        chosen = PreparedDataset(folder) if colon else dataset
        chosen.names(split)
        sets.append(CaseSet(name, chosen, split))
    return sets
