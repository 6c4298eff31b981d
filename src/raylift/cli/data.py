"""`raylift data`: public CT collections, and CT scans to a prepared dataset."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from raylift.cli.app import data_app
from raylift.cli.cases import parse_executor, report_failures
from raylift.cli.console import print_json, print_table, progress_bar, say
from raylift.cli.options import Address, GeometryOption, Processes, Projector, Where
from raylift.errors import WrongUsage

if TYPE_CHECKING:
    from raylift.data.fetch import Scan


@data_app.command()
def prepare(
    scans: Annotated[str, typer.Argument(metavar="SCANS", help="Folder of CT scans, searched to any depth: DICOM "
                                         "folders or .zip, .nii.gz, .mha, .mhd, .nrrd, .npy with a grid; or its URL.")],
    output: Annotated[str, typer.Option("-o", "--output", metavar="PATH", help="Dataset folder, or its URL; finished "
                                        "cases are kept.")],
    voxels: Annotated[int, typer.Option(help="Edge of the 320 mm cube: 64 or 128 voxels; 32 for trials.")] = 64,
    views: Annotated[str, typer.Option(help="Views of the stored X-rays: angles or names.")] = "0,90",
    geometry: GeometryOption = "chest-stand",
    pixels: Annotated[int, typer.Option(help="Edge of the stored X-rays in pixels.")] = 256,
    drr_engine: Projector = "torch",
    most_hu: Annotated[float | None, typer.Option(min=-500, help="Project what is denser as if it were this dense, in "
                                                  "HU; the published program takes 1000.")] = None,
    validation: Annotated[list[str] | None, typer.Option(help="Names or patterns of the validation cases, "
                                                         "comma-separated; repeatable; by default about a fifth of the "
                                                         "patients.")] = None,
    patients: Annotated[str, typer.Option(metavar="TABLE|PATTERN", help="Whose scans these are, so that a patient's "
                                          "stay together: a CSV file with the columns case,patient, or a regular "
                                          "expression whose first group is the patient, like '(.+)_scan'.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of the scans, for the record; fetched scans "
                                              "bring theirs.")] = "",
    engine: Where = "local",
    address: Address = None,
    processes: Processes = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the cases as JSON.")] = False,
) -> None:  # fmt: skip
    """Find the thorax in every scan and write cube, context and X-rays, with a contact sheet to look at.

    Scans that a quality check rejects and other files are named; exit code 3 where a scan was left out, 1 where a case
    was given up since its workers died.

    Example: raylift data prepare scans -o prepared --validation 'site-b-*'
    """
    from raylift.cli.parsing import check_choice, check_output, parse_geometry, parse_views, prepare_tmpdir

    prepare_tmpdir(output)
    from raylift.data.overview import write_contact_sheet
    from raylift.data.preparation import PreparationSettings
    from raylift.data.preparation import prepare as run
    from raylift.data.scans import search_scans
    from raylift.drr.registry import PROJECTORS
    from raylift.storage.paths import storage_path

    check_choice("--voxels", voxels, (32, 64, 128))
    check_choice("--drr-engine", drr_engine, PROJECTORS)
    settings = PreparationSettings(voxels, parse_views(views), parse_geometry(geometry, pixels), drr_engine, most_hu)
    where = parse_executor(engine, processes, address)
    source, target = storage_path(scans), storage_path(output)
    check_output(target, folder=True)
    patterns = [pattern.strip() for given in validation or () for pattern in given.split(",") if pattern.strip()]
    search = search_scans(source, target)
    with progress_bar("preparing") as bar:
        records = run(
            source,
            target,
            settings,
            search=search,
            validation=patterns,
            patients=patients,
            licence=licence,
            executor=where,
            progress=bar,
        )
    sheets = write_contact_sheet(target, records)
    if as_json:
        usable = sum(record.status == "ok" for record in records.values())
        print_json(
            {
                "prepared": usable,
                "cases": {name: record.to_dict() for name, record in records.items()},
                "left_out": search.left_out | search.no_scans,
                "contact_sheets": [str(sheet) for sheet in sheets],
            }
        )
    report_failures(records, "cases prepared", f"{output}; look at {sheets[0]}", search.left_out, search.no_scans)


@data_app.command("list")
def list_collections(
    collection: Annotated[str | None, typer.Argument(help="One of the collections; by default all of them.")] = None,
    patient: Annotated[list[str] | None, typer.Option(help="A patient whose series to explain; repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Show the paper's public collections, or why each series of a patient is selected or not.

    Example: raylift data list anti_pd_1_lung --patient PD-1-Lung-00001
    """
    from raylift.data.collections import judge, read_index, series_of, summarise_collections, thickness

    if patient and not collection:
        raise WrongUsage("--patient: name its collection too, like raylift data list lctsc --patient LCTSC-Test-S1-101")
    index = read_index()
    series = series_of(index, collection, patient or []) if collection else index
    if not patient:
        rows = summarise_collections(series)
    else:
        rows = [
            {
                "patient": row.PatientID,
                "date": row.StudyDate,
                "series": row.SeriesNumber,
                "description": row.SeriesDescription,
                "slices": int(row.instanceCount),
                "thickness_mm": thickness(row.SeriesDescription),
                "mb": round(row.series_size_MB, 1),
                "verdict": row.verdict,
                "reason": row.reason,
                "series_uid": row.SeriesInstanceUID,
            }
            for row in judge(series).itertuples(index=False)
        ]
    if as_json:
        print_json(rows)
    else:
        print_table([{key: value for key, value in row.items() if key != "series_uid"} for row in rows])


@data_app.command()
def fetch(
    collection: Annotated[str, typer.Argument(help="One of the collections of `raylift data list`.")],
    output: Annotated[str, typer.Option("-o", "--output", metavar="PATH", help="Folder of scans, or its URL; those "
                                        "that are there stay.")],
    patients: Annotated[int | None, typer.Option(min=1, help="Only the first patients, by name.")] = None,
    patient: Annotated[list[str] | None, typer.Option(help="Only this patient; repeatable.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be downloaded, and end.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before the download.")] = False,
    engine: Where = "local",
    address: Address = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Scans at a time; by default one after another, its "
                                                  "files at a time.")] = None,
    endpoint: Annotated[str | None, typer.Option(envvar="S3_ENDPOINT_URL", help="URL of the object store; by default "
                                                 "Amazon's, where the collections are.")] = None,
) -> None:  # fmt: skip
    """Download one chest CT per patient of a public collection, ready for `raylift data prepare`.

    Example: raylift data fetch lidc_idri -o lidc --patients 20
    """
    from raylift.cli.parsing import check_output, prepare_tmpdir

    prepare_tmpdir(output)
    from raylift.data.collections import data_version, judge, read_index, series_of
    from raylift.data.fetch import ENDPOINT, check_space, complete_scans, scans_of
    from raylift.data.fetch import fetch as run
    from raylift.storage.paths import storage_path

    if patients and patient:
        raise WrongUsage("--patients and --patient: give one of them")
    judged = judge(series_of(read_index(), collection, patient or []))
    selected = judged[judged.verdict == "selected"]
    for name in patient or []:
        if name not in set(selected.PatientID):
            why = f"raylift data list {collection} --patient {name}"
            raise WrongUsage(f"--patient {name}: none of the series serves as a chest CT; {why} says why")
    where, target = parse_executor(engine, processes, address, here=True), storage_path(output)
    check_output(target, folder=True)
    scans = scans_of(selected[:patients], data_version())
    here = complete_scans(scans, target)
    missing = [scan for scan in scans if scan not in here]
    announce(scans, missing)
    if without := judged.PatientID.nunique() - len(selected):
        say(f"{without} patients of the collection have no series that serves as a chest CT")
    check_space(missing, target)
    if dry_run:
        return
    if not yes:
        if not sys.stdin.isatty():
            raise WrongUsage("no terminal to ask on: give --yes to download, or --dry-run to look only")
        typer.confirm("Download?", abort=True, err=True)
    with progress_bar("fetching, in MB") as bar:
        failed = run(scans, target, endpoint=endpoint or ENDPOINT, executor=where, progress=bar)
    for name, reason in failed.items():
        say(f"{name}: failed: {reason}")
    say(f"{len(scans) - len(failed)} of {len(scans)} scans are in {output}")
    if failed:
        say("the same command again fetches only those that are missing")
        raise typer.Exit(1)


def announce(scans: list[Scan], missing: list[Scan]) -> None:
    """Say before a download what it is, under which licence, and how much."""
    size, left = (sum(scan.bytes for scan in group) / 1e9 for group in (scans, missing))
    licences = sorted({f"{scan.licence}, https://doi.org/{scan.doi}" for scan in scans})
    say(f"{scans[0].collection} (IDC {scans[0].idc_version}): {len(scans)} scans, {size:.2f} GB; {'; '.join(licences)}")
    say(f"to download: {len(missing)} scans, {left:.2f} GB")
