"""`raylift demo` and `raylift reconstruct`: X-rays to volumes."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raylift.cli.app import app
from raylift.cli.cases import parse_executor, report_failures
from raylift.cli.console import print_json, progress_bar, say
from raylift.cli.options import (
    Address,
    Json,
    OnRequest,
    VolumeFormat,
    VolumeOutput,
    WeightsOption,
    Where,
)
from raylift.errors import WrongUsage

if TYPE_CHECKING:
    from raylift.parallel.executors import Executor
    from raylift.radiographs.radiograph import ImageSize
    from raylift.radiographs.sets import XrayInput
    from raylift.reconstruction.batch import Lifting
    from raylift.reconstruction.reconstructor import Reconstruction
    from raylift.storage.paths import StoragePath


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for everything.")] = Path("demo-output"),
    seed: Annotated[int, typer.Option(help="Which phantom.")] = 0,
) -> None:
    """Lift two X-rays of a phantom and show how good the volume is.

    Example: raylift demo -o demo-output
    """
    from raylift.cli.parsing import check_output, prepare_tmpdir

    prepare_tmpdir(output)
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
    weights: WeightsOption = None,
    refine: Annotated[bool, typer.Option("--refine", help="Bring the volume into agreement with the X-rays.")] = False,
    refine_seconds: Annotated[float, typer.Option(min=0, help="Time limit of --refine.")] = 20.0,
    align: Annotated[bool, typer.Option("--align", help="Find small displacements of the views first.")] = False,
    pixel_size: Annotated[
        str, typer.Option(help="Edge of a pixel on the detector in mm: one for all images, or one each, as 0.2,0.14.")
    ] = "",
    width: Annotated[
        str, typer.Option(help="Instead: the longer edge of the images on the detector in mm, as 430 or 430,350.")
    ] = "",
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 3 where a volume is not to be trusted; it is written.")
    ] = False,
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
    from raylift.cli.parsing import check_choice, parse_sizes, prepare_tmpdir

    prepare_tmpdir(output)
    from raylift.io.formats import writable
    from raylift.radiographs.sets import XrayInput, kind_of
    from raylift.reconstruction.batch import Lifting
    from raylift.storage.paths import storage_path

    check_choice("--format", format_, [*(ending[1:] for ending in writable()), "dicom"])
    paths, target = [storage_path(path) for path in xrays], storage_path(output)
    executor, kind = parse_executor(engine, processes, address, here=True), kind_of(paths)
    named = None if weights is None else str(weights.absolute() if weights.exists() else weights)
    task = Lifting(named, device, refine, refine_seconds, align, format_)
    sizes = parse_sizes(pixel_size, width, len(paths))
    if kind is XrayInput.SETS:
        if views or sizes or keep_identity:
            raise WrongUsage(
                f"{paths[0]} is a folder: --views, sizes and --keep-identity are for the images of one patient"
            )
        warnings = _reconstruct_sets(task, paths[0], target, executor, as_json)
    elif kind is XrayInput.SET and (views or sizes):
        raise WrongUsage(f"--views and sizes: {paths[0]} says them itself in xrays.json")
    else:
        warnings = _reconstruct_patient(task, paths, kind, target, views, sizes, keep_identity, as_json)
    if strict and warnings:
        raise typer.Exit(3)


def _reconstruct_sets(
    task: Lifting, folder: StoragePath, target: StoragePath, executor: Executor, as_json: bool
) -> list[str]:
    """Reconstruct the sets in a folder.

    Returns:
        The warnings about their volumes.
    """
    from raylift.cli.parsing import check_output
    from raylift.parallel.cases import run_tasks
    from raylift.radiographs.sets import find_sets

    check_output(target, folder=True)
    task.reconstructor()  # what is wrong with the weights or the device is wrong for all
    sets = find_sets(folder)
    with progress_bar("reconstructing") as bar:
        records = run_tasks(task, sets, target, executor, bar)
    if as_json:
        print_json({"cases": {name: record.to_dict() for name, record in records.items()}})
    report_failures(records, "volumes", target)
    return [warning for record in records.values() for warning in record.warnings]


def _reconstruct_patient(
    task: Lifting,
    paths: list[StoragePath],
    kind: XrayInput,
    target: StoragePath,
    views: str,
    sizes: list[ImageSize | None] | None,
    keep_identity: bool,
    as_json: bool,
) -> list[str]:
    """Reconstruct one patient.

    Returns:
        The warnings about the volume.
    """
    from raylift.cli.parsing import check_output, parse_views
    from raylift.io.dicom import Study
    from raylift.radiographs.sets import SIDECAR, XrayInput
    from raylift.reconstruction.outputs import FILE_KEYS, OutputPaths, write_results
    from raylift.storage.copies import local_copy

    names = OutputPaths(target)
    for path in (names.volume, names.uncertainty):
        check_output(path, folder=names.dicom)
    for path in (names.preview, names.report, names.page):
        check_output(path)
    reconstructor, parsed_views = task.reconstructor(), parse_views(views) if views else None
    if task.align:
        say("aligning the views: some seconds")
    with ExitStack() as stack:
        # Beside a sidecar are the images that it names.
        sources = [path.parent if path.name == SIDECAR else path for path in paths]
        copies = [stack.enter_context(local_copy(path)) for path in sources]
        study = Study.of(copies) if keep_identity else None
        bar = stack.enter_context(progress_bar("refining")) if task.refine else None
        reconstruction = reconstructor(
            copies[0] if kind is XrayInput.SET else copies,
            parsed_views,
            refine=task.refine,
            align=task.align,
            seconds=task.seconds,
            sizes=sizes,
            **({"progress": bar} if bar else {}),
        )
    inputs = [] if kind is XrayInput.SET else [path.name for path in paths]
    info = reconstructor.weights.info
    report = write_results(reconstruction, names, info, aligned=task.align, study=study, inputs=inputs)
    if as_json:
        print_json(report | {key: str(target.parent / report[key]) for key in FILE_KEYS if key in report})
    else:
        _print_account(reconstruction, task.align)
        say(f"{target} and {names.page.name}: {reconstruction.trust}")
    return list(reconstruction.warnings)


def _print_account(reconstruction: Reconstruction, aligned: bool) -> None:
    """Print what a user should know of a reconstruction."""
    for note in reconstruction.notes:
        say(note)
    for view in reconstruction.xrays.views if aligned else ():
        turn, shift = (", ".join(f"{number:+.1f}" for number in triple) for triple in (view.turn, view.shift))
        say(f"{view.name} found turned by ({turn})° and shifted by ({shift}) mm about x, y, z")
    if (refinement := reconstruction.refinement) is not None:
        say(f"refined: the X-rays' error, with what surrounds the volume, fell from {refinement.error_before:.1%} "
            f"to {refinement.error_after:.1%} in {refinement.iterations} iterations")  # fmt: skip
