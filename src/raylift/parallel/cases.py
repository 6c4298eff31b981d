"""Work on many cases and record each finished one in its own folder, so that it is not repeated."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
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
# Errors of the system, which would fail the following cases too.
SYSTEM_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE)
Progress = Callable[[str, int, int], None]


def _relative_path(name: str) -> str:
    """Return a path relative to a case's folder after checking that it does not lead out of it.

    Raises ValueError, through `plain_name`, where it does.
    """
    for part in name.split("/"):
        records.plain_name(part)
    return name


class TaskRecord(records.Typed):
    """The content of a case's `case.json`.

    Args:
        status: "ok"; "rejected" where the source is unusable; "failed" where another attempt may succeed.
        source: the source's name.
        reason: why a case is rejected or failed, in one line.
        warnings: what a user should know of the result, one line each.
        fingerprint: the SHA-256 of source and settings; the same fingerprint means the same result.
        files: the files of the result, as paths relative to the case's folder.
        sha256: the SHA-256 of the files' concatenated contents.
    """

    status: Literal["ok", "rejected", "failed"]
    source: str = ""
    reason: str = ""
    warnings: list[str] = Field(default_factory=list)
    fingerprint: records.Sha256 | None = None
    files: list[Annotated[str, AfterValidator(_relative_path)]] = Field(default_factory=list, max_length=10_000)
    sha256: records.Sha256 | None = None

    def model_post_init(self, context: object) -> None:
        """Check that a result has a checksum.

        Raises:
            ValueError: it has none.
        """
        if self.status == "ok" and self.sha256 is None:
            raise ValueError("a result without a checksum")

    def detail(self, name: str) -> Any:
        """Return a further entry, which the task has written; None if there is none of this name."""
        return (self.model_extra or {}).get(name)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON-ready content of the file."""
        return self.model_dump(mode="json", exclude_unset=True)


class CaseTask(Protocol):
    """The work on one case. It is sent to the workers, so it must be possible to pickle it."""

    def depends_on(self, source: Any) -> Any:
        """Return JSON-ready data that determines the result: the same data means the same result."""

    def compute(self, source: Any) -> Any:
        """Return the result of a source, in memory; raise BadInput where the source is unusable."""

    def write(self, result: Any, folder: Path) -> tuple[dict[str, Any], list[str]]:
        """Write the result to an empty folder.

        Returns:
            The further entries of the record, and the names of the files.
        """


def run_tasks(
    work: CaseTask,
    sources: Mapping[str, Any],
    output: StoragePath,
    executor: Executor,
    progress: Progress = lambda name, done, total: None,
) -> dict[str, TaskRecord]:
    """Run the work on every case and write each result to `output/NAME/`.

    Raises WrongUsage, through `run_cases`, where the executor cannot be used, and an OSError of the system, such as a
    full disk, where it is not the fault of one case.

    Args:
        work: the work on one case.
        sources: the cases' sources by name.
        output: the folder of the cases' folders.
        executor: where to compute.
        progress: called after each case with its name, the number of finished cases and the total.

    Returns:
        The cases' records by name, in the order of `sources`.
    """
    # The workers of a cluster have working folders of their own.
    output = output.absolute()
    absolute = {name: source.absolute() if isinstance(source, Path) else source for name, source in sources.items()}
    cases = {name: (source, output / name) for name, source in absolute.items()}
    results = dict[str, TaskRecord]()
    for name, record in run_cases(partial(run_case, work), cases, executor, progress):
        if isinstance(record, GivenUp):
            record = _failure(sources[name], record.reason)
            _write_record(record, output / name)
        results[name] = record
    return {name: results[name] for name in sources}


def run_case(work: CaseTask, case: tuple[Any, StoragePath]) -> TaskRecord:
    """Run the work on one case, unless its folder already has the result; a failure is recorded, not raised.

    The record is written last: files in a folder without a record are not a result. An OSError of the system, such as
    a full disk, passes through.

    Args:
        work: the work on one case.
        case: the source and the case's folder.

    Returns:
        The case's record.
    """
    source, folder = case
    try:
        fingerprint = hashlib.sha256(json.dumps(work.depends_on(source)).encode()).hexdigest()
        previous = read_task_record(folder)
        if previous is not None and previous.fingerprint == fingerprint and _complete(folder, previous):
            return previous
        _clear(folder, previous)
        result = work.compute(source)
    except Exception as error:
        if _is_system_error(error):
            raise
        if isinstance(error, BadInput) and not isinstance(error, Unreachable):
            reason = _reason(error, source)
            record = TaskRecord(status="rejected", source=_name(source), reason=reason, fingerprint=fingerprint)
        else:
            record = _failure(source, _reason(error, source))
    else:
        try:
            with atomic_write_folder(folder) as temporary:
                details, files = work.write(result, temporary)
                sha256 = checksum(temporary / name for name in files)
            entries = {"status": "ok", "source": _name(source), "reason": "", "fingerprint": fingerprint, **details}
            record = records.parse_record({**entries, "files": files, "sha256": sha256}, TaskRecord)
        except Exception as error:
            if _is_system_error(error):
                raise
            record = _failure(source, _reason(error, source))
    _write_record(record, folder)
    return record


def _write_record(record: TaskRecord, folder: StoragePath) -> None:
    """Write the record of a case; a case whose record cannot be written is repeated in the next run.

    Raises:
        OSError: the system's error, such as a full disk; other reasons not to write are ignored.
    """
    try:
        with suppress(Unreachable):
            write_json(record.to_dict(), folder / RECORD)
    except OSError as error:
        if _is_system_error(error):
            raise


def _is_system_error(error: Exception) -> bool:
    """Return whether an error comes from the system, so that the following cases would fail as well."""
    return isinstance(error, OSError) and error.errno in SYSTEM_ERRORS


def _clear(folder: StoragePath, previous: TaskRecord | None) -> None:
    """Remove an outdated or damaged result from a case's folder, and the temporary files of killed workers."""
    for name in [RECORD, *(previous.files if previous else ())]:
        # A folder in a name may be a link that leads out of the case's folder: then the file is not removed.
        path, relative = folder / name, PurePosixPath(name)
        if not isinstance(folder, Path) or _resolved(folder / relative.parent) == _resolved(folder) / relative.parent:
            remove(path)
    for leftover in folder.glob(".*.partial*") if isinstance(folder, Path) else ():
        remove(leftover)


def _resolved(folder: Path) -> Path:
    """Return the real path of a folder, with all links resolved."""
    return Path(os.path.realpath(folder))


def _failure(source: Any, reason: str) -> TaskRecord:
    """Return the record of a failed case; it has no fingerprint, so that the next run tries the case again."""
    return TaskRecord(status="failed", source=_name(source), reason=reason)


def read_task_record(folder: StoragePath) -> TaskRecord | None:
    """Read the `case.json` of a case's folder.

    Returns:
        The record; None if it is missing or unreadable.

    Raises:
        Unreachable: a store does not answer.
    """
    try:
        return records.read_record(folder / RECORD, TaskRecord)
    except Unreachable:
        raise
    except (OSError, ValueError):
        return None


def _complete(folder: StoragePath, record: TaskRecord) -> bool:
    """Return whether the files of a record exist and, on this machine, are undamaged."""
    if record.status != "ok":
        return True
    names = record.files if "files" in record.model_fields_set else [""]
    if not isinstance(folder, Path):  # objects are never incomplete, and reading them all again is slow
        return files_below(folder) >= set(names)
    files = [folder / name for name in names]
    return all(file.is_file() for file in files) and checksum(files) == record.sha256


def _name(source: Any) -> str:
    """Return the name of a source, without its folder."""
    return str(getattr(source, "name", source))


def _reason(error: Exception, source: Any) -> str:
    """Return the text of an error in one line, with the source's name in place of its path on this machine."""
    kind = "" if isinstance(error, BadInput) else f"{type(error).__name__}: "
    return kind + " ".join(str(error).removeprefix("scan: ").split()).replace(str(source), _name(source))
