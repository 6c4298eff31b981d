"""The commands that make weights and change them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raylift.cli.app import app
from raylift.cli.console import print_json, progress_bar, say
from raylift.cli.options import (
    Data,
    Json,
    Trained,
    WeightsOption,
)

SHOWN = ("loss", "d_loss", "validation/ssim", "validation/psnr")  # while a training goes on


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe, like recipes/cpu.yaml.")],
    data: Data,
    output: Annotated[Path, typer.Option("-o", "--output", help="Run folder.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest good checkpoint.")] = False,
    init_from: Annotated[
        Path | None, typer.Option(help="Weights that the network begins with, as far as they fit: a run, or a file.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value, like train.lr=1e-4; repeatable.")] = None,
    mlflow: Annotated[bool, typer.Option("--mlflow", help="Write to MLflow too, at MLFLOW_TRACKING_URI.")] = False,
) -> None:
    """Train a recipe; interrupt it at any time and go on with --resume.

    Example: raylift train recipes/cpu.yaml --data prepared -o runs/cpu
    """
    from raylift.cli.parsing import check_output, prepare_tmpdir

    prepare_tmpdir(output)
    from raylift.config.files import load_recipe
    from raylift.model.weights import load_weights
    from raylift.training.hardware import peak_memory
    from raylift.training.run import train as run

    chosen = load_recipe(recipe, set_)
    check_output(output, folder=True)
    with progress_bar(chosen.name) as bar:

        def progress(step: int, steps: int, numbers: dict[str, float]) -> None:
            shown = {n: v for n, v in numbers.items() if n in SHOWN}
            text = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
            bar(text or last[0], step, steps)
            last[0] = text or last[0]

        last = [""]
        first = None if init_from is None else load_weights(init_from)
        done = run(chosen, data, output, resume=resume, init_from=first, mlflow=mlflow, progress=progress)
    minutes, memory = done.seconds / 60, peak_memory(done.fabric.device)
    held = "" if memory is None else f", peak memory {memory / 2**30:.2f} GiB"
    print(f"{done.step} steps in {minutes:.1f} minutes{held}")
    if done.init_info is not None:
        print(f"began with {init_from}, which holds {done.init_info.share:.0%} of the network")
    print(f"weights: {output / 'weights.safetensors'}")


@app.command()
def calibrate(
    weights: Trained,
    data: Data,
    split: Annotated[str, typer.Option(help="Patients that the weights have not seen.")] = "validation",
    views: Annotated[str, typer.Option(help="Of the stored X-rays, for weights of any views; theirs by default.")] = "",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; the first GPU by default.")] = None,
    as_json: Json = False,
) -> None:
    """Scale the uncertainty of weights to their errors on patients they have not seen, and keep it in weights.json.

    Example: raylift calibrate runs/any-views --data prepared --split validation
    """
    from raylift.cli.parsing import check_output, parse_views, prepare_tmpdir

    prepare_tmpdir(weights)
    from raylift.data.dataset import PreparedDataset
    from raylift.evaluation.calibration import LEVELS
    from raylift.evaluation.calibration import calibrate as run
    from raylift.model.weights import store_calibration
    from raylift.reconstruction.reconstructor import Reconstructor

    reconstructor = Reconstructor.from_pretrained(weights, device)
    check_output(reconstructor.weights.path)
    with progress_bar("calibrating") as bar:
        calibration = run(reconstructor, PreparedDataset(data), split, bar, parse_views(views) if views else None)
    store_calibration(reconstructor.weights, calibration)
    if as_json:
        print_json(calibration.model_dump())
        return
    held = ", ".join(f"{level:.0%} in ± {w:.2f} σ" for level, w in zip(LEVELS, calibration.widths or [], strict=True))
    print(f"standard deviations times {calibration.factor:.3f}; then {held}, on {len(calibration.cases)} patients")


@app.command()
def ensemble(
    weights: Annotated[list[Path], typer.Argument(help="Two or more weights of one recipe: runs, folders or files.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the weights.")],
) -> None:
    """Let several trainings of one recipe answer together, by the mean in each pass, as one set of weights.

    Seeds, or patients, may differ between them. Uncertainty is to be calibrated anew.

    Example: raylift ensemble runs/a runs/b -o both
    """
    from raylift.cli.parsing import check_output, prepare_tmpdir

    prepare_tmpdir(output)
    from raylift.model.weights import combine_weights, load_weights

    check_output(output, folder=True)
    print(combine_weights([load_weights(one) for one in weights], output))


@app.command()
def export(
    output: Annotated[Path, typer.Option("-o", "--output", help="Model: .onnx, or .xml for OpenVINO's own form.")],
    weights: WeightsOption = None,
) -> None:
    r"""Write the network of weights for other runtimes.

    Where weights are given, reconstruct, evaluate and compare take the result. Needs pip install 'raylift\[export]'.
    OpenVINO computes a volume in less than half of the time, but takes a second to start: use it where one process
    computes many volumes.

    Example: raylift export -o model.onnx
    """
    from raylift.cli.parsing import check_output, prepare_tmpdir

    prepare_tmpdir(output)
    from raylift.model.export import check_ending
    from raylift.model.weights import export_weights, load_weights

    check_ending(output)
    check_output(output)
    say("exporting: some ten seconds")
    difference = export_weights(load_weights(weights), output)
    say(f"{output}; on random X-rays it differs by {2000 * difference:.2g} HU at most")
