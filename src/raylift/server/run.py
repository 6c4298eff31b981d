"""The server as a process."""

from __future__ import annotations

import logging
from collections.abc import Callable

import uvicorn
from filelock import FileLock, Timeout

from raylift.errors import WrongUsage
from raylift.server.app import create_app
from raylift.server.pace import MOST_CONNECTIONS, PromptProtocol
from raylift.server.settings import Settings

SHUTDOWN_SECONDS = 5  # that requests have to end, when the server is told to


def run(settings: Settings, say: Callable[[str], None]) -> None:
    """Serve until interrupted.

    Raises:
        BadInput: the list of jobs in the folder is damaged, or cannot be opened.
        WrongUsage: another server has the folder.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    settings.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(settings.folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise WrongUsage(f"--folder {settings.folder}: another server has it; name another") from None
    with lock:
        app = create_app(settings)
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        say(f"http://{shown}:{settings.port}/ (jobs in {settings.folder}); stop with Ctrl+C")
        uvicorn.run(
            app,
            host=settings.host,
            port=settings.port,
            http=PromptProtocol,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            log_config=None,
        )
