"""Supervision of the worker processes: dead ones are replaced, and their jobs go back into the queue."""

from __future__ import annotations

import logging
import secrets
import shutil
import sqlite3
import threading
import time
from typing import Any

from raylift.server import worker
from raylift.server.jobs import JobList
from raylift.server.reader_pool import PROCESS_CONTEXT
from raylift.server.settings import ServerSettings
from raylift.server.xrays_file import XRAYS_FILE

CHECK_SECONDS = 0.5  # between two checks of the workers
STALE_SECONDS = 10.0  # without a successful check, after which the server counts as unable to work
GRACE_SECONDS = 60.0  # for a worker to notice that its job was cancelled, before it is killed
MAX_PAUSE_SECONDS = 30.0  # before another worker is started, where workers die while they start
MAX_FAILURES = 3  # workers that died one after another while they started: the server cannot work
LOG = logging.getLogger("raylift.server")


class Supervisor:
    """Starts and replaces workers, and kills those whose jobs take too long or were cancelled.

    Args:
        settings: the server's settings.
        jobs: the job list.
    """

    def __init__(self, settings: ServerSettings, jobs: JobList) -> None:
        self.settings, self.jobs = settings, jobs
        # By the worker's name:
        self.processes: dict[str, Any] = {}
        self.numbers: dict[str, int] = {}  # from 0
        self.ready: dict[str, Any] = {}  # events that the workers set when their weights are loaded
        # By claim, times of the monotonic clock:
        self.started: dict[str, float] = {}  # when the claim was first seen
        self.revoked: dict[str, float] = {}  # when the claim was first seen to be no longer valid
        self.dead_workers: set[str] = set()  # names of those whose jobs are not in the queue again yet
        self.failures, self.next_start = 0, 0.0
        self.last_check = time.monotonic()
        self.stopped = threading.Event()
        self.thread: threading.Thread | None = None

    def start(self, new: bool) -> None:
        """Clean up after an earlier server, and start the thread that watches the workers.

        Args:
            new: whether the job list is new; existing folders of jobs are then kept, since they are in another list.
        """
        for folder in (self.settings.uploads, self.settings.work):
            shutil.rmtree(folder, ignore_errors=True)
        if new:
            self._set_results_aside()
        else:
            self.jobs.requeue_all()
            self._remove_leftovers()
        for folder in (self.settings.uploads, self.settings.work, self.settings.jobs):
            folder.mkdir(parents=True, exist_ok=True)
        self.stopped.clear()
        self.last_check = time.monotonic()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Kill the workers, and put their jobs back into the queue for the next server."""
        self.stopped.set()
        if self.thread is not None:
            self.thread.join()
        for process in self.processes.values():
            process.kill()
            process.join()
        try:
            self.jobs.requeue_all()
        except sqlite3.Error as error:  # the next server requeues them when it starts
            LOG.warning("the job list cannot be written (%s)", error)

    def count_workers(self) -> int:
        """Return the number of running workers."""
        return sum(process.is_alive() for process in list(self.processes.values()))

    def can_work(self) -> bool:
        """Return whether jobs are processed: the watching thread runs, the job list is writable, and workers start."""
        watching = self.thread is not None and self.thread.is_alive()
        return watching and time.monotonic() - self.last_check < STALE_SECONDS and self.failures < MAX_FAILURES

    def _set_results_aside(self) -> None:
        """Rename the folder of jobs from an earlier job list, which the new list does not contain."""
        jobs = self.settings.jobs
        if jobs.is_dir() and any(jobs.iterdir()):
            aside = jobs.with_name(f"jobs-of-an-earlier-list-{secrets.token_hex(4)}")
            jobs.rename(aside)
            LOG.warning("the job list is new: results of an earlier one are kept in %s", aside.name)

    def _remove_leftovers(self) -> None:
        """Remove folders of jobs that are not in the list or have no result, and X-rays of jobs that are done."""
        known = self.jobs.ids()
        for folder in self.settings.jobs.iterdir() if self.settings.jobs.is_dir() else ():
            job = self.jobs.get(folder.name) if folder.name in known else None
            if job is None or job.state in ("failed", "cancelled"):
                shutil.rmtree(folder, ignore_errors=True)
            elif job.state == "done":
                (folder / XRAYS_FILE).unlink(missing_ok=True)

    def _watch(self) -> None:
        while not self.stopped.is_set():
            try:
                self._collect_dead_workers()
                self._start_missing_workers()
                self._check_jobs()
                self.last_check = time.monotonic()
            except sqlite3.Error as error:
                LOG.warning("the job list cannot be used (%s); trying again", error)
            except Exception:
                LOG.exception("watching the workers failed; trying again")
            self.stopped.wait(CHECK_SECONDS)

    def _collect_dead_workers(self) -> None:
        """Move dead workers to `dead_workers`, and count those that died while they started."""
        if any(ready.is_set() for ready in self.ready.values()):
            self.failures = 0
        for name, process in list(self.processes.items()):
            if not process.is_alive():
                process.join()
                if not self.ready.pop(name).is_set():
                    self.failures += 1
                    self.next_start = time.monotonic() + min(2.0 ** (self.failures - 3), MAX_PAUSE_SECONDS)
                LOG.warning("a worker died (exit code %s)", process.exitcode)
                del self.processes[name], self.numbers[name]
                self.dead_workers.add(name)

    def _start_missing_workers(self) -> None:
        """Start the workers that are missing."""
        if time.monotonic() < self.next_start:
            return
        for number in set(range(self.settings.workers)) - set(self.numbers.values()):
            name = secrets.token_hex(4)
            ready = PROCESS_CONTEXT.Event()
            arguments = (self.settings, name, number, ready)
            process = PROCESS_CONTEXT.Process(target=worker.main, args=arguments, daemon=True)
            process.start()
            self.processes[name], self.numbers[name], self.ready[name] = process, number, ready

    def _check_jobs(self) -> None:
        """Put the jobs of dead workers back into the queue, and end jobs that take too long.

        Raises sqlite3.Error, through the job list, where that cannot be used.
        """
        self.jobs.check_writable()
        for name in list(self.dead_workers):
            self.jobs.requeue(name)
            for folder in self.settings.work.glob(f"{name}-*"):
                shutil.rmtree(folder, ignore_errors=True)
            for job in self.jobs.claimed_by(name):
                if job.state in ("failed", "cancelled"):
                    shutil.rmtree(self.settings.job(job.id), ignore_errors=True)
            self.dead_workers.discard(name)
        self._end_overdue_jobs(time.monotonic())

    def _end_overdue_jobs(self, now: float) -> None:
        """End jobs that take too long, and kill workers that still work on a job that has ended."""
        running = {job.claim: job for job in self.jobs.running() if job.claim is not None}
        for claim, job in running.items():
            if now - self.started.setdefault(claim, now) > self.settings.seconds:
                self.jobs.end(job, "failed", f"took longer than {self.settings.seconds:g} s")
                self._kill_worker(claim)
        for claim in self.started.keys() - running.keys():
            if not (self.settings.work / claim).exists():
                del self.started[claim]
                self.revoked.pop(claim, None)
            elif now - self.revoked.setdefault(claim, now) > GRACE_SECONDS:
                self._kill_worker(claim)

    def _kill_worker(self, claim: str) -> None:
        """Kill the worker that made a claim."""
        process = self.processes.get(claim.partition("-")[0])
        if process is not None:
            process.kill()
