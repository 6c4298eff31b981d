"""The server as a process."""

from __future__ import annotations

from collections.abc import Callable

import uvicorn
from filelock import FileLock, Timeout

from raylift.errors import WrongUsage
from raylift.server.app import create_app
from raylift.server.settings import Settings


def run(settings: Settings, say: Callable[[str], None]) -> None:
    """Serve until interrupted.

    Raises:
        WrongUsage: another server has the folder.
    """
    settings.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(settings.folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise WrongUsage(f"--folder {settings.folder}: another server has it; name another") from None
    with lock:
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        say(f"http://{shown}:{settings.port}/ (jobs in {settings.folder}); stop with Ctrl+C")
        uvicorn.run(create_app(settings), host=settings.host, port=settings.port, log_level="warning")
