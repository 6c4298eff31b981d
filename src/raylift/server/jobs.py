"""The list of jobs, in SQLite: who waits, who is at work, what became of whom. It outlives the server.

Every step is one transaction, and a worker may only report on a job under the claim it took it with: a job that was
given to somebody else after a crash ends once, with one result.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

State = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED = ("done", "failed", "cancelled")
ATTEMPTS = 3  # that a job gets, whose workers die

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
    """As many jobs wait as may."""


@dataclass(frozen=True)
class Job:
    """A row of the list.

    Args:
        id: 32 hexadecimal digits, drawn at random.
        state: where it stands.
        options: what was asked for.
        created: seconds since 1970, as `started` and `ended`.
        claim: name of the attempt that is at work on it, or that ended it.
        attempts: how many were begun.
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
        path: of the SQLite file; made if missing.
        waiting: how many jobs may wait.
    """

    def __init__(self, path: Path, waiting: int) -> None:
        self.path, self.waiting = path, waiting
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._transaction() as database:
            database.executescript("PRAGMA journal_mode = WAL;" + SCHEMA)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own, whose writes count together or not at all."""
        with closing(sqlite3.connect(self.path, timeout=30, isolation_level=None)) as database:
            database.row_factory = sqlite3.Row
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
        """The job, if there is one."""
        with self._transaction() as database:
            row = database.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return None if row is None else _job(row)

    def newest(self, limit: int) -> list[Job]:
        """The newest jobs, the last one first."""
        with self._transaction() as database:
            rows = database.execute("SELECT * FROM jobs ORDER BY number DESC LIMIT ?", (limit,)).fetchall()
        return [_job(row) for row in rows]

    def count(self, *states: State) -> int:
        """How many are in one of the states."""
        with self._transaction() as database:
            marks = ", ".join("?" * len(states))
            return int(database.execute(f"SELECT count(*) FROM jobs WHERE state IN ({marks})", states).fetchone()[0])

    def place(self, job: Job) -> int:
        """How many wait before a job that waits."""
        with self._transaction() as database:
            return int(
                database.execute(
                    "SELECT count(*) FROM jobs WHERE state = 'queued' "
                    "AND number < (SELECT number FROM jobs WHERE id = ?)",
                    (job.id,),
                ).fetchone()[0]
            )

    def running(self) -> list[Job]:
        """Those at work."""
        with self._transaction() as database:
            rows = database.execute("SELECT * FROM jobs WHERE state = 'running'").fetchall()
        return [_job(row) for row in rows]

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

    def cancel(self, job_id: str) -> bool:
        """End a job that has not ended; False if it has, or is not there."""
        with self._transaction() as database:
            changed = database.execute(
                "UPDATE jobs SET state = 'cancelled', ended = ?, note = '' "
                "WHERE id = ? AND state IN ('queued', 'running')",
                (time.time(), job_id),
            )
            return changed.rowcount == 1

    def remove(self, job_id: str) -> bool:
        """Forget a job that has ended; False if it has not, or is not there."""
        with self._transaction() as database:
            changed = database.execute(
                "DELETE FROM jobs WHERE id = ? AND state IN ('done', 'failed', 'cancelled')", (job_id,)
            )
            return changed.rowcount == 1

    def give_back(self, worker: str | None = None) -> None:
        """Let running jobs wait again whose worker is gone: those of one, or all; the third time, they fail."""
        mine = "state = 'running' AND (?1 IS NULL OR claim GLOB ?1 || '-*')"
        with self._transaction() as database:
            database.execute(
                f"UPDATE jobs SET state = 'failed', error = ?2, ended = ?3 WHERE {mine} AND attempts >= ?4",
                (worker, f"the worker died {ATTEMPTS} times", time.time(), ATTEMPTS),
            )
            database.execute(f"UPDATE jobs SET state = 'queued', claim = NULL WHERE {mine}", (worker,))


def _job(row: sqlite3.Row) -> Job:
    names = Job.__dataclass_fields__
    return Job(**{name: row[name] for name in names if name != "options"}, options=json.loads(row["options"]))
