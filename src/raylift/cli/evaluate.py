"""The commands that score volumes and explain them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raylift.cli.app import app
from raylift.cli.cases import parse_executor
from raylift.cli.console import print_json, progress_bar, say
from raylift.cli.options import (
    Address,
    Data,
    Json,
    OnRequest,
    ProtocolOption,
    Trained,
    Where,
)
from raylift.errors import BadInput, WrongUsage


@app.command()
def evaluate(
    weights: Trained,
    data: Data,
    output: Annotated[str, typer.Option("-o", "--output", metavar="PATH", help="Report folder, or its URL; cases that "
                                        "were scored alike are kept.")],
    split: Annotated[str, typer.Option(help="train, validation or all.")] = "validation",
    protocol: ProtocolOption = "hu",
    views: Annotated[str, typer.Option(help="Of the stored X-rays, for weights of any views; theirs by default.")] = "",
    refine: Annotated[bool, typer.Option("--refine", help="Refine the volumes, as reconstruct --refine does.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; the first GPU by default.")] = None,
    engine: Where = "local",
    address: Address = None,
    processes: OnRequest = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Score weights on a prepared dataset, beside the mean training volume.

    A case that cannot be scored is left out and named, with exit code 3.

    Example: raylift evaluate runs/cpu --data prepared --split validation --protocol hu -o report
    """
    from raylift.cli.parsing import check_output, parse_views, prepare_tmpdir

    prepare_tmpdir(output)
    from raylift.data.dataset import PreparedDataset
    from raylift.evaluation.evaluation import evaluate as run
    from raylift.evaluation.protocols import find_protocol
    from raylift.evaluation.report import summarise
    from raylift.reconstruction.reconstructor import Reconstructor
    from raylift.storage.paths import storage_path

    find_protocol(protocol)
    where, target = parse_executor(engine, processes, address, here=True), storage_path(output)
    check_output(target, folder=True)
    dataset = PreparedDataset(data)
    reconstructor = Reconstructor.from_pretrained(weights, device)
    with progress_bar("evaluating") as bar:
        chosen = parse_views(views) if views else None
        results = run(reconstructor, dataset, split, protocol, target, bar, chosen, refine, where)
    if as_json:
        cases = [{"name": r.name, "method": r.method, **r.values} for r in results]
        print_json({"protocol": protocol, "split": split, "summary": summarise(results), "cases": cases})
    else:
        print((target / "report.md").read_text())
    if left_out := sorted(set(dataset.names(split)) - {result.name for result in results}):
        raise BadInput(data, f"{', '.join(left_out)} could not be scored", f"{output}/report.md says why")


@app.command()
def compare(
    methods: Annotated[list[str], typer.Argument(help="NAME=WHAT: weights, a run, a folder of volumes named after "
                                                      "the cases, or mean, cgls, sart-tv.")],
    data: Data,
    output: Annotated[Path, typer.Option("-o", "--output", help="Report folder.")],
    split: Annotated[str, typer.Option(help="train, validation or all.")] = "validation",
    protocol: ProtocolOption = "hu",
    views: Annotated[str, typer.Option(help="Views for cgls and sart-tv.")] = "0,90",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; the first GPU by default.")] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Put any weights and volumes side by side on the same cases: a table, and a gallery per case.

    Example: raylift compare ours=runs/cpu theirs=their-volumes mean=mean --data prepared -o comparison
    """
    from raylift.cli.parsing import check_output, parse_views, prepare_tmpdir

    prepare_tmpdir(output)
    from raylift.data.dataset import PreparedDataset
    from raylift.evaluation.comparison import TRUTH
    from raylift.evaluation.comparison import compare as run
    from raylift.evaluation.methods import find_method
    from raylift.evaluation.protocols import find_protocol
    from raylift.evaluation.report import summarise

    find_protocol(protocol)
    check_output(output, folder=True)
    dataset, chosen = PreparedDataset(data), parse_views(views)
    chosen_methods = {}
    for text in methods:
        name, equals, what = text.partition("=")
        if not equals or not name or name in chosen_methods or name == TRUTH:
            raise WrongUsage(f"{text}: give each method as NAME=WHAT under a name of its own")
        chosen_methods[name] = find_method(what, dataset, chosen, device)
    with progress_bar("comparing") as bar:
        results = run(chosen_methods, dataset, split, protocol, output, bar)
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
    from raylift.cli.parsing import check_output, prepare_tmpdir

    prepare_tmpdir(output)
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
