"""The processes that read uploads, one for each request, and few at a time."""

from __future__ import annotations

import asyncio
import errno
import json
import multiprocessing
import signal
import time
from typing import Any

from starlette.concurrency import run_in_threadpool

from raylift.server.intake import NO_ROOM, RESULT, ReadRequest, read_confined

AT_A_TIME = 2
MOST_WAITING = 32  # requests that may wait for being read
WAIT_SECONDS = 20.0  # that a request may wait
READ_SECONDS = 30.0  # that reading one request's X-rays may take
LARGEST_RESULT = 32 * 2**20  # bytes; pictures of eight X-rays take a tenth of that
TRIES = 3  # that a request gets whose process was killed from outside
# A fork of a server with threads could hang: processes are forked from one without, which has imported what they need.
FORKSERVER = "forkserver" in multiprocessing.get_all_start_methods()
PROCESSES: Any = multiprocessing.get_context("forkserver" if FORKSERVER else "spawn")
if FORKSERVER:
    PROCESSES.set_forkserver_preload(
        [
            "raylift.server.worker",
            "raylift.reconstruction.reconstructor",
            "raylift.radiographs.orientation",
            "raylift.io.dicom",
        ]
    )


class Busy(Exception):
    """Too many uploads wait for being read."""


class Unreadable(Exception):
    """Reading killed its process, or took too long."""


class Readers:
    """Has the X-rays of requests read."""

    def __init__(self) -> None:
        self.turn, self.waiting = asyncio.Semaphore(AT_A_TIME), 0

    async def understand(self, request: ReadRequest) -> dict[str, Any]:
        """Read a request's X-rays (`raylift.server.intake.understand`). Raises Busy or Unreadable."""
        if self.waiting >= MOST_WAITING:
            raise Busy
        self.waiting += 1
        try:
            try:
                await asyncio.wait_for(self.turn.acquire(), WAIT_SECONDS)
            except TimeoutError:
                raise Busy from None
            try:
                return await run_in_threadpool(_read, request)
            finally:
                self.turn.release()
        finally:
            self.waiting -= 1


def _read(request: ReadRequest) -> dict[str, Any]:
    """Read in a process of its own. Raises Unreadable, and OSError where the disk is full."""
    for attempt in range(1, TRIES + 1):
        try:
            process = PROCESSES.Process(target=read_confined, args=(request,), daemon=True)
            process.start()
        except (OSError, EOFError):  # the process that is forked was killed: it is begun anew
            time.sleep(0.1 * attempt)
            continue
        process.join(READ_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
            raise Unreadable
        result = request.folder / RESULT
        if process.exitcode == 0 and result.is_file() and result.stat().st_size <= LARGEST_RESULT:
            found: dict[str, Any] = json.loads(result.read_bytes())
            return found
        if process.exitcode == NO_ROOM:
            raise OSError(errno.ENOSPC, "no room for what was read", str(request.folder))
        if process.exitcode != -signal.SIGKILL:
            break
    raise Unreadable
