"""The job list, in an SQLite file that outlives the server: jobs that wait, that run and that have ended.

Every change is one transaction. A worker can only change a job under the claim with which it took the job, so a job
that was given to another worker after a crash still ends once, with one result. Reading never waits for a writer
(write-ahead log). Any method raises sqlite3.Error where the list is locked, damaged or gone, or the disk is full.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from raylift.errors import BadInput

State = Literal["queued", "running", "done", "failed", "cancelled"]
MAX_ATTEMPTS = 3  # for a job whose workers die
LOCKED_SECONDS = 3.0  # the longest time that a change waits for another one

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    options TEXT NOT NULL,
    created REAL NOT NULL,
    started REAL,
    ended REAL,
    attempts INTEGER NOT NULL DEFAULT 0,
    claim TEXT,
    note TEXT NOT NULL DEFAULT '',
    progress REAL NOT NULL DEFAULT 0,
    error TEXT
);
CREATE INDEX IF NOT EXISTS by_state ON jobs (state, number);
"""


class QueueFull(Exception):
    """Raised when no more jobs may wait."""


@dataclass(frozen=True)
class Job:
    """A row of the job list.

    Args:
        id: 32 random hexadecimal digits.
        state: whether the job waits, runs, or how it ended.
        options: the job's options, and the client's names of its files under "names".
        created: when the client sent the job, in seconds since 1970.
        started: when the last attempt began, in seconds since 1970.
        ended: when the job ended, in seconds since 1970.
        attempts: number of attempts so far, without those that ended because the server stopped.
        claim: name of the attempt that is running, or that ended the job: the worker's name, "-" and random digits.
        note: the step that is running.
        progress: from 0 to 1.
        error: why the job failed, in one sentence.
    """

    id: str
    state: State
    options: dict[str, Any]
    created: float
    started: float | None
    ended: float | None
    attempts: int
    claim: str | None
    note: str
    progress: float
    error: str | None


class JobList:
    """The job list, in a file that any number of processes may open.

    Args:
        path: path of the SQLite file, which `prepare` creates.
        max_waiting: how many jobs may wait.
    """

    def __init__(self, path: Path, max_waiting: int) -> None:
        self.path, self.max_waiting = path, max_waiting

    def prepare(self) -> bool:
        """Create the file if there is none, and check that it can be used.

        Returns:
            Whether the list is new.

        Raises:
            BadInput: the file is damaged, is not a job list, or cannot be opened.
        """
        new = not self.path.exists()
        try:
            with closing(sqlite3.connect(self.path, timeout=LOCKED_SECONDS, isolation_level=None)) as database:
                _check_content(database)
            self.check_writable()
        except sqlite3.OperationalError as error:
            remedy = "end the program that uses it, or make it and its folder writable"
            raise BadInput(self.path, f"the job list cannot be opened ({error})", remedy) from None
        except sqlite3.DatabaseError as error:
            remedy = "restore it, or move it away; the results of its jobs are kept"
            raise BadInput(self.path, f"not a job list, or a damaged one ({error})", remedy) from None
        return new

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """Open the existing file; one that is gone is not created again, since its jobs would be lost silently.

        Yields:
            The connection, which the block may use.
        """
        name = f"{self.path.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(name, LOCKED_SECONDS, isolation_level=None, uri=True)) as database:
            database.row_factory = sqlite3.Row
            yield database

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Open the file for changes that are made together or not at all.

        Yields:
            The connection, with a transaction that is committed after the block, or rolled back if it raises.
        """
        with self._connected() as database:
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
            except BaseException:
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise
            if database.in_transaction:
                database.execute("COMMIT")

    def add(self, job_id: str, options: dict[str, Any]) -> Job:
        """Add a job to the end of the queue.

        Returns:
            The new job.

        Raises:
            QueueFull: `max_waiting` jobs wait already.
        """
        with self._transaction() as database:
            (count,) = database.execute("SELECT count(*) FROM jobs WHERE state = 'queued'").fetchone()
            if count >= self.max_waiting:
                raise QueueFull
            database.execute(
                "INSERT INTO jobs (id, state, options, created) VALUES (?, 'queued', ?, ?)",
                (job_id, json.dumps(options), time.time()),
            )
            return _job(database.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone())

    def get(self, job_id: str) -> Job | None:
        """Return a job, or None if there is none with this id."""
        with self._connected() as database:
            row = database.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return None if row is None else _job(row)

    def get_many(self, job_ids: Sequence[str]) -> dict[str, Job]:
        """Return several jobs by id, without ids that do not exist."""
        with self._connected() as database:
            query = "SELECT * FROM jobs WHERE id IN (SELECT value FROM json_each(?))"
            rows = database.execute(query, (json.dumps(list(job_ids)),)).fetchall()
        return {row["id"]: _job(row) for row in rows}

    def ids(self) -> set[str]:
        """Return the ids of all jobs."""
        with self._connected() as database:
            return {row["id"] for row in database.execute("SELECT id FROM jobs")}

    def newest(self, limit: int) -> list[Job]:
        """Return up to `limit` jobs, the newest first."""
        with self._connected() as database:
            rows = database.execute("SELECT * FROM jobs ORDER BY number DESC LIMIT ?", (limit,)).fetchall()
        return [_job(row) for row in rows]

    def count(self, *states: State) -> int:
        """Return the number of jobs in any of the states."""
        with self._connected() as database:
            query = "SELECT count(*) FROM jobs WHERE state IN (SELECT value FROM json_each(?))"
            return int(database.execute(query, (json.dumps(states),)).fetchone()[0])

    def waiting_ids(self) -> list[str]:
        """Return the ids of the waiting jobs, the next one first."""
        with self._connected() as database:
            return [row["id"] for row in database.execute("SELECT id FROM jobs WHERE state = 'queued' ORDER BY number")]

    def running(self) -> list[Job]:
        """Return the jobs that are running."""
        with self._connected() as database:
            rows = database.execute("SELECT * FROM jobs WHERE state = 'running'").fetchall()
        return [_job(row) for row in rows]

    def claimed_by(self, worker: str) -> list[Job]:
        """Return the jobs whose last claim is a worker's."""
        with self._connected() as database:
            rows = database.execute("SELECT * FROM jobs WHERE claim GLOB ? || '-*'", (worker,)).fetchall()
        return [_job(row) for row in rows]

    def check_writable(self) -> None:
        """Check that the list can be written; raises sqlite3.Error where it cannot."""
        with self._transaction() as database:
            database.execute("UPDATE jobs SET note = note WHERE number = 0")

    def claim(self, worker: str) -> Job | None:
        """Claim the job that has waited longest, for a worker.

        Returns:
            The job with its new claim, or None where no job waits.
        """
        with self._transaction() as database:
            row = database.execute(
                "UPDATE jobs SET state = 'running', claim = ?, started = ?, attempts = attempts + 1, note = '', "
                "progress = 0 WHERE number = (SELECT min(number) FROM jobs WHERE state = 'queued') RETURNING *",
                (f"{worker}-{secrets.token_hex(4)}", time.time()),
            ).fetchone()
        return None if row is None else _job(row)

    def report(self, job: Job, note: str, progress: float) -> bool:
        """Record the progress of a claimed job.

        Returns:
            Whether it was recorded; False if the job has ended, or the claim is no longer valid.
        """
        with self._transaction() as database:
            changed = database.execute(
                "UPDATE jobs SET note = ?, progress = ? WHERE id = ? AND claim = ? AND state = 'running'",
                (note, progress, job.id, job.claim),
            )
            return changed.rowcount == 1

    def end(self, job: Job, state: Literal["done", "failed"], error: str | None = None) -> bool:
        """End a claimed job.

        Returns:
            Whether it was ended; False if the job has ended already, or the claim is no longer valid. The worker's
            results must not be used then.
        """
        with self._transaction() as database:
            changed = database.execute(
                "UPDATE jobs SET state = ?, error = ?, ended = ?, progress = 1, note = '' "
                "WHERE id = ? AND claim = ? AND state = 'running'",
                (state, error, time.time(), job.id, job.claim),
            )
            return changed.rowcount == 1

    def cancel(self, job_id: str) -> State | None:
        """Cancel a job that waits or runs.

        Returns:
            The state that it was in, or None if it has ended or does not exist.
        """
        with self._transaction() as database:
            row = database.execute(
                "SELECT state FROM jobs WHERE id = ? AND state IN ('queued', 'running')", (job_id,)
            ).fetchone()
            if row is None:
                return None
            database.execute(
                "UPDATE jobs SET state = 'cancelled', ended = ?, note = '' WHERE id = ?", (time.time(), job_id)
            )
            state: State = row["state"]
            return state

    def remove(self, job_id: str) -> bool:
        """Remove a job that has ended from the list.

        Returns:
            Whether it was removed; False if it has not ended or does not exist.
        """
        with self._transaction() as database:
            changed = database.execute(
                "DELETE FROM jobs WHERE id = ? AND state IN ('done', 'failed', 'cancelled')", (job_id,)
            )
            return changed.rowcount == 1

    def requeue(self, worker: str) -> None:
        """Put the job of a dead worker back into the queue; after `MAX_ATTEMPTS` attempts, the job fails instead."""
        with self._transaction() as database:
            database.execute(
                "UPDATE jobs SET state = 'failed', error = ?, ended = ? "
                "WHERE state = 'running' AND claim GLOB ? || '-*' AND attempts >= ?",
                (f"the worker died {MAX_ATTEMPTS} times", time.time(), worker, MAX_ATTEMPTS),
            )
            database.execute(
                "UPDATE jobs SET state = 'queued', claim = NULL WHERE state = 'running' AND claim GLOB ? || '-*'",
                (worker,),
            )

    def requeue_all(self) -> None:
        """Put all running jobs back into the queue when the server stops, without counting the attempt."""
        with self._transaction() as database:
            database.execute(
                "UPDATE jobs SET state = 'queued', claim = NULL, attempts = attempts - 1 WHERE state = 'running'"
            )


def _check_content(database: sqlite3.Connection) -> None:
    """Create the table if there is none, and check it.

    Raises:
        DatabaseError: the file is damaged, or has other columns.
    """
    if database.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise sqlite3.DatabaseError("damaged")
    database.execute("PRAGMA journal_mode = WAL")
    database.executescript(SCHEMA)
    columns = ", ".join(Job.__dataclass_fields__)
    database.execute(f"SELECT {columns} FROM jobs LIMIT 1")  # noqa: S608 - names of this class's fields


def _job(row: sqlite3.Row) -> Job:
    names = Job.__dataclass_fields__
    return Job(**{name: row[name] for name in names if name != "options"}, options=json.loads(row["options"]))
