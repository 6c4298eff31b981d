"""The processes that serve a server: workers that reconstruct, and one that reads uploads; the dead are replaced."""

from __future__ import annotations

import asyncio
import multiprocessing
import secrets
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnProcess
from typing import Any

from raylift.server import reading, worker
from raylift.server.jobs import Jobs
from raylift.server.settings import Settings

LOOK = 0.5  # seconds between two looks at the workers
READING_SECONDS = 60.0  # that reading one request's X-rays may take
READERS_WAITING = 32  # requests that may wait for being read
SPAWN = multiprocessing.get_context("spawn")  # a fork of a server with threads could hang


class Busy(Exception):
    """Too many uploads wait for being read."""


class Unreadable(Exception):
    """Reading killed its process, or took too long."""


class Workers:
    """Keeps as many workers as there are to be, and takes time-outs and cancelled jobs from them."""

    def __init__(self, settings: Settings, jobs: Jobs) -> None:
        self.settings, self.jobs = settings, jobs
        self.processes: dict[int, tuple[str, SpawnProcess]] = {}  # by number; the name is that of a process's claims
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Take up what an earlier server left, and begin."""
        self.jobs.give_back()
        self.thread.start()

    def stop(self) -> None:
        """End the workers; what they are at waits for the next server."""
        self.stopped.set()
        self.thread.join()
        for _, process in self.processes.values():
            process.kill()
            process.join()
        self.jobs.give_back()

    def _watch(self) -> None:
        while not self.stopped.is_set():
            for number, (name, process) in list(self.processes.items()):
                if not process.is_alive():
                    del self.processes[number]
                    self.jobs.give_back(name)
            for job in self.jobs.running():
                if job.started is not None and time.time() - job.started > self.settings.seconds:
                    self.jobs.end(job, "failed", f"took longer than {self.settings.seconds:g} s")
                    self._kill(job.claim)
            for number in set(range(self.settings.workers)) - set(self.processes):
                name = secrets.token_hex(4)
                process = SPAWN.Process(target=worker.main, args=(self.settings, name, number), daemon=True)
                process.start()
                self.processes[number] = name, process
            self.stopped.wait(LOOK)

    def _kill(self, claim: str | None) -> None:
        for name, process in self.processes.values():
            if (claim or "").startswith(f"{name}-"):
                process.kill()


class Reader:
    """Reads uploads in another process, one request at a time; the others wait without a thread of the server's."""

    def __init__(self, weights: str | None) -> None:
        self.weights, self.turn, self.waiting = weights, asyncio.Lock(), 0
        self.pool: ProcessPoolExecutor | None = None

    def start(self) -> ProcessPoolExecutor:
        """Begin a process, which loads the weights while nothing is asked."""
        self.pool = ProcessPoolExecutor(1, SPAWN, reading.begin)
        self.pool.submit(reading.load, self.weights)
        return self.pool

    async def understand(self, ask: reading.Ask, whole: bool) -> dict[str, Any]:
        """See `raylift.server.reading.understand`. Raises Busy or Unreadable."""
        if self.waiting >= READERS_WAITING:
            raise Busy
        self.waiting += 1
        try:
            async with self.turn:
                try:
                    pool = self.pool or self.start()
                    found = asyncio.wrap_future(pool.submit(reading.understand, ask, whole))
                    return await asyncio.wait_for(found, READING_SECONDS)
                except (BrokenProcessPool, TimeoutError):
                    self.stop()
                    raise Unreadable from None
        finally:
            self.waiting -= 1

    def stop(self) -> None:
        """End the process."""
        if self.pool is not None:
            self.pool.kill_workers() if hasattr(self.pool, "kill_workers") else _kill(self.pool)
            self.pool = None


def _kill(pool: ProcessPoolExecutor) -> None:
    """What Python 3.14 calls `kill_workers`."""
    processes = list((pool._processes or {}).values())
    for process in processes:
        process.kill()
    pool.shutdown(wait=False, cancel_futures=True)
