"""`raylift drr`: CT scans to X-rays."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from raylift.cli.app import app
from raylift.cli.cases import parse_executor, report_failures
from raylift.cli.console import print_json, progress_bar, say
from raylift.cli.options import (
    Address,
    GeometryOption,
    Json,
    Processes,
    Projector,
    Where,
)
from raylift.errors import WrongUsage


@app.command()
def drr(
    ct: Annotated[
        str,
        typer.Argument(
            metavar="CT",
            help="DICOM folder or .zip, .nii.gz, .mha, .mhd, .nrrd, .npy with a grid; or a folder of such; or a URL.",
        ),
    ],
    output: Annotated[
        str,
        typer.Option("-o", "--output", metavar="PATH", help="Folder for the X-rays and xrays.json, of many scans one "
                     "in it for each; or its URL."),
    ],
    views: Annotated[str, typer.Option(help="Angles in degrees or names, comma-separated.")] = "0,90",
    geometry: GeometryOption = "chest-stand",
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

    Of many, those that do not serve are named; exit code 3 where a scan was left out, 1 where some
    failed that may succeed another time.

    Example: raylift drr chest.nii.gz --views 0,90 -o xrays
    """
    from raylift.cli.parsing import check_choice, check_output, parse_geometry, parse_views, prepare_tmpdir

    prepare_tmpdir(output)
    from raylift.data.projection import Projection
    from raylift.data.scans import is_scan, search_scans
    from raylift.drr.plastimatch import program_for
    from raylift.drr.registry import PROJECTORS
    from raylift.parallel.cases import run_tasks
    from raylift.radiographs.sets import write_xrays
    from raylift.storage.paths import storage_path

    if engine in PROJECTORS:  # what --engine meant before there were clusters
        drr_engine, engine = engine, "local"
    check_choice("--drr-engine", drr_engine, PROJECTORS)
    chosen, camera = parse_views(views), parse_geometry(geometry, pixels)
    if drr_engine == "plastimatch":
        program_for(camera)
    work = Projection(chosen, camera, drr_engine, dicom, _parse_point(isocentre) if isocentre else None)
    where, source, target = parse_executor(engine, processes, address), storage_path(ct), storage_path(output)
    check_output(target, folder=True)
    if (isinstance(source, Path) and not source.exists()) or is_scan(source):
        with progress_bar("projecting") as bar:
            xrays = work.compute(source, lambda done: bar(chosen[done - 1].name, done, len(chosen)))
        paths = write_xrays(xrays, target, drr_engine, dicom=dicom)
        if as_json:
            print_json(
                {"xrays": [str(path) for path in paths], "isocentre_lps_mm": xrays.isocentre, "notes": xrays.notes}
            )
        else:
            for note in xrays.notes:
                say(note)
            say(f"{len(paths)} X-rays in {output}")
        return
    with progress_bar("projecting") as bar:
        search = search_scans(source, target)
        records = run_tasks(work, search.scans, target, where, bar)
    if as_json:
        cases = {name: record.to_dict() for name, record in records.items()}
        print_json({"cases": cases, "left_out": search.left_out | search.no_scans})
    report_failures(records, "scans projected", output, search.left_out, search.no_scans)


def _parse_point(text: str) -> tuple[float, float, float]:
    try:
        x, y, z = (float(part) for part in text.split(","))
        if not all(map(math.isfinite, (x, y, z))):
            raise ValueError
    except ValueError:
        raise WrongUsage(f"--isocentre {text}: give x,y,z in mm") from None
    return x, y, z
