"""The commands on X-rays, volumes and weights."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from raylift.cli.app import app
from raylift.cli.cases import parse_executor, report_failures
from raylift.cli.console import print_json, progress_bar, say
from raylift.cli.options import (
    Address,
    Data,
    Json,
    OnRequest,
    Processes,
    Projector,
    Protocol,
    Trained,
    Unit,
    VolumeFormat,
    VolumeOutput,
    Weights,
    Where,
)
from raylift.errors import BadInput, WrongUsage

SHOWN = ("loss", "d_loss", "validation/ssim", "validation/psnr")  # while a training goes on


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for everything.")] = Path("demo-output"),
    seed: Annotated[int, typer.Option(help="Which phantom.")] = 0,
) -> None:
    """Lift two X-rays of a phantom and show how good the volume is.

    Example: raylift demo -o demo-output
    """
    from raylift.cli.parsing import check_output
    from raylift.evaluation.demo import demo as run

    check_output(output, folder=True)
    started = time.monotonic()
    numbers = run(output, seed, say)
    print(
        f"SSIM {numbers['ssim']:.3f}  PSNR {numbers['psnr']:.2f} dB  MAE {numbers['mae_hu']:.0f} HU  (protocol hu)\n"
        f"re-projection error {numbers['reprojection_error']:.1%}; of the true cube "
        f"{numbers['reprojection_error_of_truth']:.1%}, since rays cross more than the cube\n"
        f"done in {time.monotonic() - started:.0f} s"
    )


@app.command()
def drr(
    ct: Annotated[
        str,
        typer.Argument(
            metavar="CT",
            help="DICOM folder, .nii.gz, .mha, .mhd, .nrrd, or .npy with a grid; or a folder of such scans; or a URL.",
        ),
    ],
    output: Annotated[
        str,
        typer.Option("-o", "--output", metavar="PATH", help="Folder for the X-rays and xrays.json, of many scans one "
                     "in it for each; or its URL."),
    ],
    views: Annotated[str, typer.Option(help="Angles in degrees or names, comma-separated.")] = "0,90",
    geometry: Unit = "chest-stand",
    pixels: Annotated[int, typer.Option(min=32, max=4096, help="Edge of the detector in pixels.")] = 256,
    drr_engine: Projector = "torch",
    dicom: Annotated[bool, typer.Option("--dicom", help="Write digital radiographs (DICOM DX), not .mha.")] = False,
    isocentre: Annotated[str, typer.Option(help="World point x,y,z in mm (LPS); the thorax is found by default.")] = "",
    engine: Where = "local",
    address: Address = None,
    processes: Processes = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Project a CT scan to X-rays: line integrals through the whole scan. Or each of a folder of scans.

    Of many, those that do not serve are named; exit code 1 where some failed that may succeed another time.

    Example: raylift drr chest.nii.gz --views 0,90 -o xrays
    """
    from raylift.cli.parsing import check_choice, check_output, parse_geometry, parse_views
    from raylift.data.preparation import find_scans, is_scan
    from raylift.data.projection import Projection
    from raylift.drr.plastimatch import program_for
    from raylift.drr.registry import PROJECTORS
    from raylift.parallel.cases import run_tasks
    from raylift.radiographs.sets import write_xrays
    from raylift.storage.paths import storage_path

    if engine in PROJECTORS:  # what --engine meant before there were clusters
        drr_engine, engine = engine, "local"
    check_choice("--drr-engine", drr_engine, PROJECTORS)
    chosen, unit = parse_views(views), parse_geometry(geometry, pixels)
    if drr_engine == "plastimatch":
        program_for(unit)
    work = Projection(chosen, unit, drr_engine, dicom, _parse_point(isocentre) if isocentre else None)
    where, source, target = parse_executor(engine, processes, address), storage_path(ct), storage_path(output)
    check_output(target, folder=True)
    if (isinstance(source, Path) and not source.exists()) or is_scan(source):
        with progress_bar("projecting") as bar:
            made = work.compute(source, lambda done: bar(chosen[done - 1].name, done, len(chosen)))
        paths = write_xrays(made, target, drr_engine, dicom=dicom)
        if as_json:
            print_json({"xrays": [str(path) for path in paths], "isocentre_lps_mm": made.isocentre})
        else:
            say(f"{len(paths)} X-rays in {output}")
        return
    with progress_bar("projecting") as bar:
        records = run_tasks(work, find_scans(source, target), target, where, bar)
    if as_json:
        print_json({"cases": records})
    report_failures(records, "scans projected", output)


@app.command()
def reconstruct(
    xrays: Annotated[
        list[str],
        typer.Argument(metavar="XRAYS...", help="A folder of raylift drr, or X-ray images with --views; or a folder "
                       "of many such folders; or URLs."),
    ],
    output: VolumeOutput,
    views: Annotated[
        str,
        typer.Option(
            help="View of each image, in order: angles, or ap, pa, lateral-left, lateral-right. DICOM says it."
        ),
    ] = "",
    weights: Weights = None,
    refine: Annotated[bool, typer.Option("--refine", help="Bring the volume into agreement with the X-rays.")] = False,
    refine_seconds: Annotated[float, typer.Option(min=0, help="Time limit of --refine.")] = 20.0,
    align: Annotated[bool, typer.Option("--align", help="Find small displacements of the views first.")] = False,
    keep_identity: Annotated[
        bool, typer.Option("--keep-identity", help="Carry patient and study of DICOM X-rays into a DICOM series.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; the first GPU by default.")] = None,
    format_: VolumeFormat = "mha",
    engine: Where = "local",
    address: Address = None,
    processes: OnRequest = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Lift X-rays into a volume; a preview picture and a report (HTML and JSON) are written beside it.

    Where the weights tell it, the standard deviation of each voxel's error in HU is written as NAME-uncertainty. A
    name without an ending is a folder for a DICOM CT series; it knows nothing of the patient without --keep-identity.
    Of many, those that do not serve are named; exit code 1 where some failed that may succeed another time.

    Example: raylift reconstruct pa.png lateral.dcm --views pa,lateral-left -o volume.mha
    """
    from raylift.cli.parsing import check_choice, check_output, parse_views
    from raylift.io.dicom import Study
    from raylift.io.formats import writable
    from raylift.parallel.cases import run_tasks
    from raylift.radiographs.sets import SIDECAR, find_sets
    from raylift.reconstruction.batch import Lifting
    from raylift.reconstruction.outputs import FILES, OutputPaths, write_results
    from raylift.reconstruction.reconstructor import Reconstructor
    from raylift.storage.copies import local_copy
    from raylift.storage.paths import is_file, storage_path

    check_choice("--format", format_, [*(ending[1:] for ending in writable()), "dicom"])
    places, target = [storage_path(one) for one in xrays], storage_path(output)
    where = parse_executor(engine, processes, address, here=True)
    one = places[0] if len(places) == 1 else None
    as_set = one is not None and (one.name == SIDECAR or is_file(one / SIDECAR))
    if one is not None and not as_set and not is_file(one) and one.exists():
        if views or keep_identity:
            raise WrongUsage(f"{one} is a folder: --views and --keep-identity are for the images of one patient")
        check_output(target, folder=True)
        named = None if weights is None else str(weights.absolute() if weights.exists() else weights)
        work = Lifting(named, device, refine, refine_seconds, align, format_)
        Reconstructor.from_pretrained(named, device)  # what is wrong with these is wrong for all
        found = find_sets(one)
        with progress_bar("reconstructing") as bar:
            records = run_tasks(work, found, target, where, bar)
        if as_json:
            print_json({"cases": records})
        report_failures(records, "volumes", output)
        return
    names = OutputPaths(target)
    for path in (names.volume, names.uncertainty):
        check_output(path, folder=names.dicom)
    for path in (names.preview, names.report, names.page):
        check_output(path)
    if views and as_set:
        raise WrongUsage(f"--views: {one} says its views itself in {SIDECAR}")
    reconstructor = Reconstructor.from_pretrained(weights, device)
    taken = parse_views(views) if views else None
    if align:
        say("aligning the views: some seconds")
    with ExitStack() as stack:
        # Beside a sidecar are the images that it tells of.
        parents = [path.parent if path.name == SIDECAR else path for path in places]
        copies = [stack.enter_context(local_copy(path)) for path in parents]
        study = Study.of(copies) if keep_identity else None
        given = copies[0] if as_set else copies
        if refine:
            with progress_bar("refining") as bar:
                made = reconstructor(given, taken, refine=True, align=align, seconds=refine_seconds, progress=bar)
        else:
            made = reconstructor(given, taken, align=align)
    inputs = [] if as_set else [path.name for path in places]
    report = write_results(made, names, reconstructor.weights.info, aligned=align, study=study, inputs=inputs)
    refined = made.refinement
    if as_json:
        paths = {key: str(target.parent / report[key]) for key in FILES if key in report}
        print_json(report | paths)
        return
    for note in made.notes:
        say(note)
    if align:
        for view in made.xrays.views:
            turn, shift = (", ".join(f"{number:+.1f}" for number in triple) for triple in (view.turn, view.shift))
            say(f"{view.name} found turned by ({turn})° and shifted by ({shift}) mm about x, y, z")
    if refined is not None:
        say(f"refined: the X-rays' error, with what surrounds the volume, fell from {refined.error_before:.1%} "
            f"to {refined.error_after:.1%} in {refined.iterations} iterations")  # fmt: skip
    say(f"{output} and {names.page.name}: {made.trust}")


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
    mlflow: Annotated[
        bool, typer.Option("--mlflow", help="Tell MLflow too, at MLFLOW_TRACKING_URI; TensorBoard always is.")
    ] = False,
) -> None:
    """Train a recipe; interrupt it at any time and go on with --resume.

    Example: raylift train recipes/cpu.yaml --data prepared -o runs/cpu
    """
    from raylift.cli.parsing import check_output
    from raylift.config.files import load_recipe
    from raylift.model.weights import load_weights
    from raylift.training.run import peak_memory
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
    print(f"{done.step} steps in {minutes:.1f} minutes, peak memory {memory / 2**30:.2f} GiB")
    if done.init_info is not None:
        print(f"began with {init_from}, which holds {done.init_info['share']:.0%} of the network")
    print(f"weights: {output / 'weights.safetensors'}")


@app.command()
def evaluate(
    weights: Trained,
    data: Data,
    output: Annotated[str, typer.Option("-o", "--output", metavar="PATH", help="Report folder, or its URL; cases that "
                                        "were scored alike are kept.")],
    split: Annotated[str, typer.Option(help="train, validation or all.")] = "validation",
    protocol: Protocol = "hu",
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
    from raylift.cli.parsing import check_output, parse_views
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
def calibrate(
    weights: Trained,
    data: Data,
    split: Annotated[str, typer.Option(help="Patients that the weights have not seen.")] = "validation",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; the first GPU by default.")] = None,
    as_json: Json = False,
) -> None:
    """Make the uncertainty of weights right on patients they have not seen; weights.json keeps what was found.

    Example: raylift calibrate runs/any-views --data prepared --split validation
    """
    from raylift.cli.parsing import check_output
    from raylift.data.dataset import PreparedDataset
    from raylift.evaluation.calibration import LEVELS
    from raylift.evaluation.calibration import calibrate as run
    from raylift.model.weights import store_calibration
    from raylift.reconstruction.reconstructor import Reconstructor

    reconstructor = Reconstructor.from_pretrained(weights, device)
    check_output(reconstructor.weights.path)
    with progress_bar("calibrating") as bar:
        found = run(reconstructor, PreparedDataset(data), split, bar)
    store_calibration(reconstructor.weights, found)
    if as_json:
        print_json(found)
        return
    held = ", ".join(f"{level:.0%} in ± {w:.2f} σ" for level, w in zip(LEVELS, found["widths"], strict=True))
    print(f"standard deviations times {found['factor']:.3f}; then {held}, on {len(found['cases'])} patients")


@app.command()
def ensemble(
    weights: Annotated[list[Path], typer.Argument(help="Two or more weights of one recipe: runs, folders or files.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the weights.")],
) -> None:
    """Let several trainings of one recipe answer together, by the mean in each pass, as one set of weights.

    Seeds, or patients, may differ between them. Uncertainty is to be calibrated anew.

    Example: raylift ensemble runs/a runs/b -o both
    """
    from raylift.cli.parsing import check_output
    from raylift.model.weights import combine_weights, load_weights

    check_output(output, folder=True)
    print(combine_weights([load_weights(one) for one in weights], output))


@app.command()
def export(
    output: Annotated[Path, typer.Option("-o", "--output", help="Model: .onnx, or .xml for OpenVINO's own form.")],
    weights: Weights = None,
) -> None:
    """Write the network of weights for other runtimes.

    Where weights are given, reconstruct, evaluate and compare take the result. Needs pip install 'raylift\\[export]'.
    OpenVINO computes a volume in less than half of the time, but takes a second to start: use it where one process
    computes many volumes.

    Example: raylift export -o model.onnx
    """
    from raylift.cli.parsing import check_output
    from raylift.model.export import check_ending
    from raylift.model.weights import export_weights, load_weights

    check_ending(output)
    check_output(output)
    say("exporting: some ten seconds")
    difference = export_weights(load_weights(weights), output)
    say(f"{output}; on random X-rays it differs by {2000 * difference:.2g} HU at most")


@app.command()
def serve(
    folder: Annotated[Path, typer.Option("--folder", help="For jobs and their results.")] = Path("raylift-server"),
    host: Annotated[str, typer.Option(help="Address to listen at; others than this machine's own need a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with the token that every request has to bring; or set RAYLIFT_TOKEN to the token."),
    ] = None,
    weights: Weights = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that reconstruct, which divide cores or GPUs.")] = 1,
    waiting: Annotated[int, typer.Option(min=1, help="How many jobs may wait.")] = 50,
    seconds: Annotated[float, typer.Option(min=1, help="That a job may take.")] = 600.0,
) -> None:
    """Serve reconstructions over HTTP, and a web page for them. Needs pip install 'raylift\\[server]'.

    Jobs and results lie in the folder, and outlive the server.

    Example: raylift serve --port 8000
    """
    from raylift.cli.parsing import check_output, read_token
    from raylift.model.weights import load_weights
    from raylift.server.settings import Settings

    check_output(folder, folder=True)
    token, named = read_token(token_file), None if weights is None else str(weights)
    settings = Settings(folder.resolve(), host, port, token, named, workers, waiting, seconds)
    load_weights(weights)
    from raylift.server.run import run

    run(settings, say)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Print versions, devices, threads, engines and the state of the embedded weights.

    Example: raylift doctor
    """
    from raylift.cli.doctor import examine

    findings = examine()
    if as_json:
        print_json(findings)
    else:
        for name, value in findings.items():
            text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
            print(f"{name:10} {', '.join(text) if isinstance(text, list) else text}")
    if not all(state.startswith("good") for state in findings["weights"].values()):
        raise typer.Exit(1)


def _parse_point(text: str) -> tuple[float, float, float]:
    try:
        x, y, z = (float(part) for part in text.split(","))
        if not all(map(math.isfinite, (x, y, z))):
            raise ValueError
    except ValueError:
        raise WrongUsage(f"--isocentre {text}: give x,y,z in mm") from None
    return x, y, z
