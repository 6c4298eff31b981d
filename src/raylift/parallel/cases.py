"""Work on many cases, each recorded in its own folder when it is done, so that none is done twice."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, Field

from raylift.errors import BadInput
from raylift.parallel.executors import Executor, GivenUp, run_cases
from raylift.storage import records
from raylift.storage.atomic import atomic_write_folder, write_json
from raylift.storage.paths import StoragePath, Unreachable, checksum, files_below, remove

RECORD = "case.json"
# What is no case's fault, and of all that follow too.
SYSTEM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE)
Progress = Callable[[str, int, int], None]


def _below(name: str) -> str:
    """Return a file's way below its case's folder. Raises ValueError for one that leads elsewhere."""
    for part in name.split("/"):
        records.plain_name(part)
    return name


class TaskRecord(records.Typed):
    """What of `case.json` decides whether a case is done.

    Args:
        status: "ok", "rejected" or "failed".
        fingerprint: of source and settings; the result is the same while it is.
        files: of the result, as ways below the case's folder.
        sha256: of the files' contents, one after another.
    """

    status: Literal["ok", "rejected", "failed"]
    fingerprint: records.Sha256 | None = None
    files: list[Annotated[str, AfterValidator(_below)]] = Field(default_factory=list, max_length=10_000)
    sha256: records.Sha256 | None = None

    def model_post_init(self, context: object) -> None:
        """Check that a result has a checksum. Raises ValueError."""
        if self.status == "ok" and self.sha256 is None:
            raise ValueError("a result without a checksum")


class CaseTask(Protocol):
    """What is done to each case. Sent to the workers, so that its values must be such as can be pickled."""

    def depends_on(self, source: Any) -> Any:
        """JSON-ready: the result is the same while this is."""

    def compute(self, source: Any) -> Any:
        """The result, in memory. Raises BadInput where the source does not serve."""

    def write(self, made: Any, folder: Path) -> tuple[dict[str, Any], list[str]]:
        """Write the result into an empty folder; returns what is recorded of it, and the files' names."""


def run_tasks(
    work: CaseTask,
    sources: Mapping[str, Any],
    output: StoragePath,
    executor: Executor,
    progress: Progress = lambda name, done, total: None,
) -> dict[str, dict[str, Any]]:
    """Work on every case, into `output/NAME/`.

    Args:
        work: what is done.
        sources: of the cases, by name.
        output: folder of the cases' folders.
        engine: where.
        progress: called with the case's name, the number done and the total after each case.

    Returns:
        By name, in the order of `sources`, the content of `case.json`: "status", which is "ok", "rejected" where the
        source does not serve, or "failed" where it may another time, and the "reason".

    Raises:
        WrongUsage: of the engine.
        OSError: of the system rather than a case, such as a full disk.
    """
    # Workers of a cluster stand in folders of their own.
    output = output.absolute()
    places = {name: source.absolute() if isinstance(source, Path) else source for name, source in sources.items()}
    cases = {name: (source, output / name) for name, source in places.items()}
    found = dict[str, dict[str, Any]]()
    for name, record in run_cases(partial(run_case, work), cases, executor, progress):
        if isinstance(record, GivenUp):
            record = _failed(sources[name], record.reason)
            _write(record, output / name)
        found[name] = record
    return {name: found[name] for name in sources}


def run_case(work: CaseTask, case: tuple[Any, StoragePath]) -> dict[str, Any]:
    """Work on one case, source and folder; a failure is recorded, not raised.

    The record is written last: without it, what is in the folder counts for nothing.

    Raises:
        OSError: of the system rather than the case, such as a full disk.
    """
    source, folder = case
    record: dict[str, Any] = {"source": _name(source)}
    try:
        fingerprint = hashlib.sha256(json.dumps(work.depends_on(source)).encode()).hexdigest()
        previous = read_record(folder)
        if previous is not None and previous.get("fingerprint") == fingerprint and _complete(folder, previous):
            return previous
        _clear(folder, previous)
        record["fingerprint"] = fingerprint
        made = work.compute(source)
    except Exception as error:
        if _is_systems(error):
            raise
        if isinstance(error, BadInput) and not isinstance(error, Unreachable):
            record |= {"status": "rejected", "reason": _reason(error, source)}
        else:
            record = _failed(source, _reason(error, source))
    else:
        try:
            with atomic_write_folder(folder) as there:
                told, files = work.write(made, there)
                sha256 = checksum(there / name for name in files)
            record |= {"status": "ok", "reason": "", **told, "files": files, "sha256": sha256}
        except Exception as error:
            if _is_systems(error):
                raise
            record = _failed(source, _reason(error, source))
    _write(record, folder)
    return record


def _write(record: dict[str, Any], folder: StoragePath) -> None:
    """The record, if it can be written: what is not recorded is done again."""
    try:
        write_json(record, folder / RECORD)
    except (OSError, Unreachable) as error:
        if _is_systems(error):
            raise


def _is_systems(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in SYSTEM


def _clear(folder: StoragePath, previous: dict[str, Any] | None) -> None:
    """Remove what is of another source or other settings, or damaged, and what killed workers left."""
    for name in [RECORD, *(previous or {}).get("files", [])]:
        # Names may hold folders; none of those may be a link to somewhere else.
        if not isinstance(folder, Path) or _real((folder / name).parent) == _real(folder) / PurePosixPath(name).parent:
            remove(folder / name)
    for left in folder.glob(".*.partial*") if isinstance(folder, Path) else ():
        remove(left)


def _real(folder: Path) -> Path:
    """Return where a folder lies, all links followed."""
    return Path(os.path.realpath(folder))


def _failed(source: Any, reason: str) -> dict[str, Any]:
    """Without a fingerprint, as it is not the source's fault for certain: the next run tries it again."""
    return {"source": _name(source), "status": "failed", "reason": reason}


def read_record(folder: StoragePath) -> dict[str, Any] | None:
    """What `case.json` says in a folder; None without one that can be read. Raises Unreachable."""
    try:
        return records.read_record(folder / RECORD, TaskRecord).model_dump(mode="json", exclude_unset=True)
    except Unreachable:
        raise
    except (OSError, ValueError):
        return None


def _complete(folder: StoragePath, record: dict[str, Any]) -> bool:
    """Whether what a record tells of is there, and on this machine also undamaged."""
    if record["status"] != "ok":
        return True
    names = record.get("files", [""])
    if not isinstance(folder, Path):  # objects are whole, and reading them all again costs
        return files_below(folder) >= set(names)
    files = [folder / name for name in names]
    return all(file.is_file() for file in files) and checksum(files) == record["sha256"]


def _name(source: Any) -> str:
    return str(getattr(source, "name", source))


def _reason(error: Exception, source: Any) -> str:
    """Without the way to the source, which is this machine's."""
    kind = "" if isinstance(error, BadInput) else f"{type(error).__name__}: "
    return kind + " ".join(str(error).removeprefix("scan: ").split()).replace(str(source), _name(source))
