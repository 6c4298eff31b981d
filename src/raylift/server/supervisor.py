"""The processes that reconstruct: the dead are replaced, and what they were at goes back to the list."""

from __future__ import annotations

import logging
import secrets
import shutil
import sqlite3
import threading
import time
from typing import Any

from raylift.server import worker
from raylift.server.jobs import Jobs
from raylift.server.kept import NAME
from raylift.server.readers import PROCESSES
from raylift.server.settings import Settings

LOOK = 0.5  # seconds between two looks at the workers
STALE = 10.0  # seconds after which a look that did not succeed means that the server cannot work
GRACE = 60.0  # seconds that a worker has to notice that its job was cancelled
LONGEST_PAUSE = 30.0  # seconds before another worker is started, where they die before they begin
MOST_FAILURES = 3  # workers that died before they began, one after another: the server cannot work
LOG = logging.getLogger("raylift.server")


class Supervisor:
    """Keeps as many workers as there are to be, and takes jobs from them that last too long or were cancelled."""

    def __init__(self, settings: Settings, jobs: Jobs) -> None:
        self.settings, self.jobs = settings, jobs
        self.processes: dict[str, Any] = {}  # by the name under which a worker claims jobs
        self.numbers: dict[str, int] = {}  # of the workers, from 0
        self.ready: dict[str, Any] = {}  # events that the workers set when they begin to work
        self.claims: dict[str, float] = {}  # when a claim was first seen, by the monotonic clock like the next
        self.taken: dict[str, float] = {}  # when a claim was first seen to be of no use any more
        self.dead: set[str] = set()  # workers whose jobs are still to be given back
        self.failures, self.next_start = 0, 0.0
        self.looked = time.monotonic()
        self.stopped = threading.Event()
        self.thread: threading.Thread | None = None

    def start(self, new: bool) -> None:
        """Take up what an earlier server left, and begin.

        Args:
            new: the list of jobs was made just now, so that folders that it does not know are another list's.
        """
        for folder in (self.settings.uploads, self.settings.work):
            shutil.rmtree(folder, ignore_errors=True)
        if new:
            self._put_aside()
        else:
            self.jobs.give_back_all()
            self._sweep()
        for folder in (self.settings.uploads, self.settings.work, self.settings.jobs):
            folder.mkdir(parents=True, exist_ok=True)
        self.stopped.clear()
        self.looked = time.monotonic()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """End the workers; what they are at waits for the next server."""
        self.stopped.set()
        if self.thread is not None:
            self.thread.join()
        for process in self.processes.values():
            process.kill()
            process.join()
        try:
            self.jobs.give_back_all()
        except sqlite3.Error as error:  # the next server does it
            LOG.warning("the list of jobs cannot be written (%s)", error)

    def alive(self) -> int:
        """Count the workers that live."""
        return sum(process.is_alive() for process in list(self.processes.values()))

    def able(self) -> bool:
        """Tell whether jobs get done: workers are watched, the list can be written, and workers begin."""
        watching = self.thread is not None and self.thread.is_alive() and time.monotonic() - self.looked < STALE
        return watching and self.failures < MOST_FAILURES

    def _put_aside(self) -> None:
        """Keep job folders that a new list does not know under another name."""
        jobs = self.settings.jobs
        if jobs.is_dir() and any(jobs.iterdir()):
            aside = jobs.with_name(f"jobs-of-an-earlier-list-{secrets.token_hex(4)}")
            jobs.rename(aside)
            LOG.warning("the list of jobs is new: results of an earlier one are kept in %s", aside.name)

    def _sweep(self) -> None:
        """Remove job folders that have no row, those of jobs without a result, and X-rays that are done with."""
        known = self.jobs.ids()
        for folder in self.settings.jobs.iterdir() if self.settings.jobs.is_dir() else ():
            job = self.jobs.get(folder.name) if folder.name in known else None
            if job is None or job.state in ("failed", "cancelled"):
                shutil.rmtree(folder, ignore_errors=True)
            elif job.state == "done":
                (folder / NAME).unlink(missing_ok=True)

    def _watch(self) -> None:
        while not self.stopped.is_set():
            try:
                self._bury()
                self._hire()
                self._look()
                self.looked = time.monotonic()
            except sqlite3.Error as error:
                LOG.warning("the list of jobs cannot be used (%s); trying again", error)
            except Exception:
                LOG.exception("watching the workers failed; trying again")
            self.stopped.wait(LOOK)

    def _bury(self) -> None:
        """Take note of dead workers."""
        if any(ready.is_set() for ready in self.ready.values()):
            self.failures = 0
        for name, process in list(self.processes.items()):
            if not process.is_alive():
                process.join()
                if not self.ready.pop(name).is_set():
                    self.failures += 1
                    self.next_start = time.monotonic() + min(2.0 ** (self.failures - 3), LONGEST_PAUSE)
                LOG.warning("a worker died (exit code %s)", process.exitcode)
                del self.processes[name], self.numbers[name]
                self.dead.add(name)

    def _hire(self) -> None:
        """Start the workers that are missing."""
        if time.monotonic() < self.next_start:
            return
        for number in set(range(self.settings.workers)) - set(self.numbers.values()):
            name = secrets.token_hex(4)
            ready = PROCESSES.Event()
            process = PROCESSES.Process(target=worker.main, args=(self.settings, name, number, ready), daemon=True)
            process.start()
            self.processes[name], self.numbers[name], self.ready[name] = process, number, ready

    def _look(self) -> None:
        """Give back the jobs of the dead, and end those that last too long. Raises sqlite3.Error."""
        self.jobs.check_writable()
        for name in list(self.dead):
            self.jobs.give_back(name)
            for folder in self.settings.work.glob(f"{name}-*"):
                shutil.rmtree(folder, ignore_errors=True)
            for job in self.jobs.claimed_by(name):
                if job.state in ("failed", "cancelled"):
                    shutil.rmtree(self.settings.job(job.id), ignore_errors=True)
            self.dead.discard(name)
        self._end_late(time.monotonic())

    def _end_late(self, now: float) -> None:
        """End jobs that last too long, and workers that do not leave a job which was taken from them."""
        running = {job.claim: job for job in self.jobs.running() if job.claim is not None}
        for claim, job in running.items():
            if now - self.claims.setdefault(claim, now) > self.settings.seconds:
                self.jobs.end(job, "failed", f"took longer than {self.settings.seconds:g} s")
                self._kill(claim)
        for claim in self.claims.keys() - running.keys():
            if not (self.settings.work / claim).exists():
                del self.claims[claim]
                self.taken.pop(claim, None)
            elif now - self.taken.setdefault(claim, now) > GRACE:
                self._kill(claim)

    def _kill(self, claim: str) -> None:
        """Kill the worker that has a claim."""
        process = self.processes.get(claim.partition("-")[0])
        if process is not None:
            process.kill()
