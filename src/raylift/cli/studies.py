"""The commands that compare: studies of the paper's form, methods side by side, and what a volume depends on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raylift.cli.app import app
from raylift.cli.console import print_json, progress_bar, say
from raylift.cli.options import Data, Json, Protocol, Trained
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
    protocol: Protocol = "hu",
    only: Annotated[list[str] | None, typer.Option(help="Label of a row to train now, repeatable.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Of views, alignment and gradients: a recipe, by name or file, to "
                                               "ask instead of the paper's and ours.")] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Train, score and tabulate one of the paper's comparisons under an equal budget; run again to go on.

    Example: raylift study methods --data prepared -o studies --minutes 25 --seeds 1
    """
    from raylift.cli.parsing import check_output

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
        print_json({"results": outcome.results, "failures": outcome.failures})
    elif outcome.report is not None:
        print(outcome.report.read_text())
        say(f"{outcome.report}, and .csv and .tex beside it")
    for cell, reason in outcome.failures.items():
        say(f"{cell} failed: {reason}; run the command again to try it again")
    if outcome.failures:
        raise typer.Exit(1)


@app.command()
def compare(
    methods: Annotated[list[str], typer.Argument(help="NAME=WHAT: weights, a run, a folder of volumes named after "
                                                      "the cases, or mean, cgls, sart-tv.")],
    data: Data,
    output: Annotated[Path, typer.Option("-o", "--output", help="Report folder.")],
    split: Annotated[str, typer.Option(help="train, validation or all.")] = "validation",
    protocol: Protocol = "hu",
    views: Annotated[str, typer.Option(help="Views for cgls and sart-tv.")] = "0,90",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; the first GPU by default.")] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Put any weights and volumes side by side on the same cases: a table, and a gallery per case.

    Example: raylift compare ours=runs/cpu theirs=their-volumes mean=mean --data prepared -o comparison
    """
    from raylift.cli.parsing import check_output, parse_views
    from raylift.data.dataset import PreparedDataset
    from raylift.evaluation.comparison import TRUTH
    from raylift.evaluation.comparison import compare as run
    from raylift.evaluation.methods import find_method
    from raylift.evaluation.protocols import find_protocol
    from raylift.evaluation.report import summarise

    find_protocol(protocol)
    check_output(output, folder=True)
    dataset, chosen = PreparedDataset(data), parse_views(views)
    found = {}
    for text in methods:
        name, equals, what = text.partition("=")
        if not equals or not name or name in found or name == TRUTH:
            raise WrongUsage(f"{text}: give each method as NAME=WHAT under a name of its own")
        found[name] = find_method(what, dataset, chosen, device)
    with progress_bar("comparing") as bar:
        results = run(found, dataset, split, protocol, output, bar)
    if as_json:
        print_json({"protocol": protocol, "split": split, "summary": summarise(results)})
        return
    print((output / "report.md").read_text())


@app.command()
def explain(
    weights: Trained,
    data: Data,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for gradients.png, .svg and .csv.")],
    split: Annotated[str, typer.Option(help="train, validation or all.")] = "validation",
    as_json: Json = False,
) -> None:
    """Show how much volumes depend on each view: gradient magnitudes within and across patients.

    Example: raylift explain runs/cpu --data prepared -o gradients
    """
    from raylift.cli.parsing import check_output
    from raylift.data.dataset import PreparedDataset
    from raylift.evaluation.saliency_figure import draw_dependence
    from raylift.reconstruction.reconstructor import Reconstructor

    check_output(output, folder=True)
    dataset = PreparedDataset(data)
    reconstructor = Reconstructor.from_pretrained(weights)
    with progress_bar("explaining") as bar:
        shares = draw_dependence(reconstructor, dataset, dataset.cases(split), output, weights.stem, bar)
    names = [view.name for view in reconstructor.lifted_network.views]
    if as_json:
        print_json({"views": names, "shares": shares})
        return
    for case, values in shares.items():
        print(f"{case}: " + ", ".join(f"{name} {value:.0%}" for name, value in zip(names, values, strict=True)))
    say(f"{output / 'gradients.png'}")


def _parse_sets(texts: list[str], dataset: PreparedDataset) -> list[CaseSet]:
    """ "seen=train" or "covid=prepared-covid:all". Raises WrongUsage and BadInput."""
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
