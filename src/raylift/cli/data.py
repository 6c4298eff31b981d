"""`raylift data`: CT scans to a prepared dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raylift.cli import data_app
from raylift.cli.console import print_json, progress_bar, say


@data_app.command()
def prepare(
    scans: Annotated[Path, typer.Argument(help="Folder of CT scans, searched to any depth: DICOM folders, .nii.gz, "
                                               ".mha, .mhd, .nrrd, .npy with a grid.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Dataset folder; finished cases are kept.")],
    voxels: Annotated[int, typer.Option(help="Edge of the 320 mm cube in voxels: 64 or 128.")] = 64,
    views: Annotated[str, typer.Option(help="Views of the stored X-rays: angles or names.")] = "0,90",
    geometry: Annotated[str, typer.Option(help="X-ray unit: chest-stand, x2ct or parallel.")] = "chest-stand",
    pixels: Annotated[int, typer.Option(help="Edge of the stored X-rays in pixels.")] = 256,
    drr_engine: Annotated[str, typer.Option(help="Projector: torch or plastimatch.")] = "torch",
    validation: Annotated[str, typer.Option(help="Names or patterns of the validation cases, comma-separated; by "
                                                 "default a fifth, chosen by name.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of the scans, for the record.")] = "",
    processes: Annotated[int | None, typer.Option(min=1, help="Cases at a time; one per core by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the cases as JSON.")] = False,
) -> None:  # fmt: skip
    """Find the thorax in every scan and write cube, context and X-rays, with a contact sheet to look at.

    Example: raylift data prepare scans -o prepared --validation 'site-b-*'
    """
    from raylift.cli.parsing import check_choice, check_output, parse_geometry, parse_views
    from raylift.data.prepare import Settings
    from raylift.data.prepare import prepare as run
    from raylift.drr import ENGINES
    from raylift.evaluation.overview import write_contact_sheet

    check_choice("--voxels", voxels, (64, 128))
    check_choice("--drr-engine", drr_engine, ENGINES)
    settings = Settings(voxels, parse_views(views), parse_geometry(geometry, pixels), drr_engine)
    check_output(output, folder=True)
    patterns = [pattern.strip() for pattern in validation.split(",") if pattern.strip()]
    with progress_bar("preparing") as bar:
        records = run(scans, output, settings, validation=patterns, licence=licence, processes=processes, progress=bar)
    sheets = write_contact_sheet(output, records)
    usable = [name for name, record in records.items() if record["status"] == "ok"]
    if as_json:
        print_json({"prepared": len(usable), "cases": records, "contact_sheets": [str(sheet) for sheet in sheets]})
        return
    for name, record in records.items():
        for text in [record["reason"]] if record["reason"] else record.get("warnings", []):
            say(f"{name}: {record['status']}: {text}")
    say(f"{len(usable)} of {len(records)} cases prepared in {output}; look at {sheets[0]}")
