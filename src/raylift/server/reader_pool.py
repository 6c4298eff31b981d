"""Processes that read uploads: one for each request, and only a few at a time."""

from __future__ import annotations

import asyncio
import errno
import json
import multiprocessing
import signal
import time
from typing import Any

from starlette.concurrency import run_in_threadpool

from raylift.server.upload_reader import DISK_FULL_CODE, RESULT_FILE, ReadRequest, read_confined

MAX_PROCESSES = 2
MAX_WAITING = 32  # requests that wait for a process
WAIT_SECONDS = 20.0  # the longest wait for a process
READ_SECONDS = 30.0  # the longest time for reading one request's X-rays
MAX_RESULT_BYTES = 32 * 2**20  # pictures of eight X-rays take a tenth of that
MAX_ATTEMPTS = 3  # for a request whose process was killed from outside
# Forking a server that has threads could make the new process hang. So processes are forked from a fork server, which
# has no threads and has already imported what they need.
FORKSERVER = "forkserver" in multiprocessing.get_all_start_methods()
PROCESS_CONTEXT: Any = multiprocessing.get_context("forkserver" if FORKSERVER else "spawn")
if FORKSERVER:
    PROCESS_CONTEXT.set_forkserver_preload(
        [
            "raylift.server.worker",
            "raylift.reconstruction.reconstructor",
            "raylift.radiographs.orientation",
            "raylift.io.dicom",
        ]
    )


class Busy(Exception):
    """Raised when too many uploads wait for a process, or one waited too long."""


class Unreadable(Exception):
    """Raised when reading an upload crashed its process, or took too long."""


class ReaderPool:
    """Reads uploads in processes of their own, at most `MAX_PROCESSES` at a time."""

    def __init__(self) -> None:
        self.slots, self.waiting = asyncio.Semaphore(MAX_PROCESSES), 0

    async def read(self, request: ReadRequest) -> dict[str, Any]:
        """Read a request's X-rays in a process of its own.

        It raises Unreadable where that process crashed or took too long, and OSError where the disk is full.

        Returns:
            The result of `raylift.server.upload_reader.read_upload`.

        Raises:
            Busy: too many uploads wait already, or this one waited too long.
        """
        if self.waiting >= MAX_WAITING:
            raise Busy
        self.waiting += 1
        try:
            try:
                await asyncio.wait_for(self.slots.acquire(), WAIT_SECONDS)
            except TimeoutError:
                raise Busy from None
            try:
                return await run_in_threadpool(_read, request)
            finally:
                self.slots.release()
        finally:
            self.waiting -= 1


def _read(request: ReadRequest) -> dict[str, Any]:
    """Read a request's X-rays in a new process, and wait for it.

    Returns:
        The result of `raylift.server.upload_reader.read_upload`.

    Raises:
        Unreadable: the process crashed or took too long.
        OSError: the disk is full.
    """
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            process = PROCESS_CONTEXT.Process(target=read_confined, args=(request,), daemon=True)
            process.start()
        except (OSError, EOFError):  # the fork server was killed; the next start launches a new one
            time.sleep(0.1 * attempt)
            continue
        process.join(READ_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
            raise Unreadable
        path = request.folder / RESULT_FILE
        if process.exitcode == 0 and path.is_file() and path.stat().st_size <= MAX_RESULT_BYTES:
            result: dict[str, Any] = json.loads(path.read_bytes())
            return result
        if process.exitcode == DISK_FULL_CODE:
            raise OSError(errno.ENOSPC, "no room for the X-rays that were read", str(request.folder))
        if process.exitcode != -signal.SIGKILL:
            break
    raise Unreadable
