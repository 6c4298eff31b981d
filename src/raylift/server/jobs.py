"""The list of jobs, in SQLite: who waits, who is at work, what became of whom. It outlives the server.

Every change is one transaction, and a worker may only report on a job under the claim it took it with: a job that was
given to somebody else after a crash ends once, with one result. Reading waits for nobody (write-ahead log). Any method
raises sqlite3.Error where the list cannot be read or written: it is locked, full, damaged or gone.
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
ENDED = ("done", "failed", "cancelled")
ATTEMPTS = 3  # that a job gets, whose workers die
LOCKED_SECONDS = 3.0  # that a change waits for another one

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


class Full(Exception):
    """No more jobs may wait."""


@dataclass(frozen=True)
class Job:
    """A row of the list.

    Args:
        id: 32 hexadecimal digits, drawn at random.
        state: where it stands.
        options: what was asked for.
        created: seconds since 1970, as `started` and `ended`.
        claim: name of the attempt that is at work on it, or that ended it.
        attempts: how many were begun, but for those that ended with the server.
        note: what is being done.
        progress: from 0 to 1.
        error: one sentence, where it failed.
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


class Jobs:
    """The list, in a file; any number of processes may open it.

    Args:
        path: of the SQLite file, see `prepare`.
        waiting: how many jobs may wait.
    """

    def __init__(self, path: Path, waiting: int) -> None:
        self.path, self.waiting = path, waiting

    def prepare(self) -> bool:
        """Make the list if there is none, and check it.

        Returns:
            Whether it is new.

        Raises:
            BadInput: the file is damaged, is no list of jobs, or cannot be opened.
        """
        new = not self.path.exists()
        try:
            with closing(sqlite3.connect(self.path, timeout=LOCKED_SECONDS, isolation_level=None)) as database:
                if database.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                    raise sqlite3.DatabaseError("damaged")
                database.execute("PRAGMA journal_mode = WAL")
                database.executescript(SCHEMA)
                columns = ", ".join(Job.__dataclass_fields__)
                database.execute(f"SELECT {columns} FROM jobs LIMIT 1")  # noqa: S608 - names of this class's fields
            self.check_writable()
        except sqlite3.OperationalError as error:
            remedy = "end the program that uses it, or make it and its folder writable"
            raise BadInput(self.path, f"the list of jobs cannot be opened ({error})", remedy) from None
        except sqlite3.DatabaseError as error:
            remedy = "restore it, or move it away: results of its jobs are kept"
            raise BadInput(self.path, f"no list of jobs, or a damaged one ({error})", remedy) from None
        return new

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """Open the list as it is: one that is gone is not made again, since its jobs would be forgotten silently."""
        name = f"{self.path.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(name, LOCKED_SECONDS, isolation_level=None, uri=True)) as database:
            database.row_factory = sqlite3.Row
            yield database

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Open the list for changes that count together or not at all."""
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
        """Put a job at the end of those that wait, if there is room. Raises Full."""
        with self._transaction() as database:
            (count,) = database.execute("SELECT count(*) FROM jobs WHERE state = 'queued'").fetchone()
            if count >= self.waiting:
                raise Full
            database.execute(
                "INSERT INTO jobs (id, state, options, created) VALUES (?, 'queued', ?, ?)",
                (job_id, json.dumps(options), time.time()),
            )
            return _job(database.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone())

    def get(self, job_id: str) -> Job | None:
        """Return the job, if there is one."""
        with self._connected() as database:
            row = database.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return None if row is None else _job(row)

    def those(self, job_ids: Sequence[str]) -> dict[str, Job]:
        """Return those of the jobs that there are, by id."""
        with self._connected() as database:
            asked = "SELECT * FROM jobs WHERE id IN (SELECT value FROM json_each(?))"
            rows = database.execute(asked, (json.dumps(list(job_ids)),)).fetchall()
        return {row["id"]: _job(row) for row in rows}

    def ids(self) -> set[str]:
        """Return the ids of all jobs."""
        with self._connected() as database:
            return {row["id"] for row in database.execute("SELECT id FROM jobs")}

    def newest(self, limit: int) -> list[Job]:
        """Return the newest jobs, the last one first."""
        with self._connected() as database:
            rows = database.execute("SELECT * FROM jobs ORDER BY number DESC LIMIT ?", (limit,)).fetchall()
        return [_job(row) for row in rows]

    def count(self, *states: State) -> int:
        """Count the jobs in one of the states."""
        with self._connected() as database:
            asked = "SELECT count(*) FROM jobs WHERE state IN (SELECT value FROM json_each(?))"
            return int(database.execute(asked, (json.dumps(states),)).fetchone()[0])

    def waiting_ids(self) -> list[str]:
        """Return the ids of those that wait, the next one first."""
        with self._connected() as database:
            return [row["id"] for row in database.execute("SELECT id FROM jobs WHERE state = 'queued' ORDER BY number")]

    def running(self) -> list[Job]:
        """Return those at work."""
        with self._connected() as database:
            rows = database.execute("SELECT * FROM jobs WHERE state = 'running'").fetchall()
        return [_job(row) for row in rows]

    def claimed_by(self, worker: str) -> list[Job]:
        """Return those that a worker is at, or was the last to be at."""
        with self._connected() as database:
            rows = database.execute("SELECT * FROM jobs WHERE claim GLOB ? || '-*'", (worker,)).fetchall()
        return [_job(row) for row in rows]

    def check_writable(self) -> None:
        """Raise sqlite3.Error where the list cannot be written."""
        with self._transaction() as database:
            database.execute("UPDATE jobs SET note = note WHERE number = 0")

    def claim(self, worker: str) -> Job | None:
        """Take the job that has waited longest, under a new claim of a worker."""
        with self._transaction() as database:
            row = database.execute(
                "UPDATE jobs SET state = 'running', claim = ?, started = ?, attempts = attempts + 1, note = '', "
                "progress = 0 WHERE number = (SELECT min(number) FROM jobs WHERE state = 'queued') RETURNING *",
                (f"{worker}-{secrets.token_hex(4)}", time.time()),
            ).fetchone()
        return None if row is None else _job(row)

    def report(self, job: Job, note: str, progress: float) -> bool:
        """Say how far a claimed job is; False if it is nobody's business any more."""
        with self._transaction() as database:
            changed = database.execute(
                "UPDATE jobs SET note = ?, progress = ? WHERE id = ? AND claim = ? AND state = 'running'",
                (note, progress, job.id, job.claim),
            )
            return changed.rowcount == 1

    def end(self, job: Job, state: Literal["done", "failed"], error: str | None = None) -> bool:
        """End a claimed job; False if it was taken away, and nothing may come of the work on it."""
        with self._transaction() as database:
            changed = database.execute(
                "UPDATE jobs SET state = ?, error = ?, ended = ?, progress = 1, note = '' "
                "WHERE id = ? AND claim = ? AND state = 'running'",
                (state, error, time.time(), job.id, job.claim),
            )
            return changed.rowcount == 1

    def cancel(self, job_id: str) -> State | None:
        """End a job that has not ended; returns the state that it was in, None if it has, or is not there."""
        with self._transaction() as database:
            row = database.execute(
                "SELECT state FROM jobs WHERE id = ? AND state IN ('queued', 'running')", (job_id,)
            ).fetchone()
            if row is None:
                return None
            database.execute(
                "UPDATE jobs SET state = 'cancelled', ended = ?, note = '' WHERE id = ?", (time.time(), job_id)
            )
            found: State = row["state"]
            return found

    def remove(self, job_id: str) -> bool:
        """Forget a job that has ended; False if it has not, or is not there."""
        with self._transaction() as database:
            changed = database.execute(
                "DELETE FROM jobs WHERE id = ? AND state IN ('done', 'failed', 'cancelled')", (job_id,)
            )
            return changed.rowcount == 1

    def give_back(self, worker: str) -> None:
        """Let the job of a worker that died wait again; the third time, it fails."""
        with self._transaction() as database:
            database.execute(
                "UPDATE jobs SET state = 'failed', error = ?, ended = ? "
                "WHERE state = 'running' AND claim GLOB ? || '-*' AND attempts >= ?",
                (f"the worker died {ATTEMPTS} times", time.time(), worker, ATTEMPTS),
            )
            database.execute(
                "UPDATE jobs SET state = 'queued', claim = NULL WHERE state = 'running' AND claim GLOB ? || '-*'",
                (worker,),
            )

    def give_back_all(self) -> None:
        """Let all running jobs wait again, since the server ends or ended: that is no fault of theirs."""
        with self._transaction() as database:
            database.execute(
                "UPDATE jobs SET state = 'queued', claim = NULL, attempts = attempts - 1 WHERE state = 'running'"
            )


def _job(row: sqlite3.Row) -> Job:
    names = Job.__dataclass_fields__
    return Job(**{name: row[name] for name in names if name != "options"}, options=json.loads(row["options"]))
