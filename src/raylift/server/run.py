"""Running the server until it is interrupted."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable

import uvicorn
from filelock import FileLock, Timeout

from raylift.errors import WrongUsage
from raylift.server.app import NOT_BUILT, create_app, page_is_built
from raylift.server.settings import ServerSettings
from raylift.server.timeouts import MAX_CONNECTIONS, HeaderTimeoutProtocol

SHUTDOWN_SECONDS = 5  # for requests that are being answered when the server stops


def run(settings: ServerSettings, say: Callable[[str], None]) -> None:
    """Serve until interrupted, or ended by SIGTERM, which is exit code 0.

    A job list that is damaged or cannot be opened raises BadInput, through `create_app`.

    Args:
        settings: the server's settings.
        say: prints a line for the user.

    Raises:
        WrongUsage: another server uses the folder.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    settings.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(settings.folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise WrongUsage(f"--folder {settings.folder}: another server uses it; name another folder") from None
    # Once it has stopped, uvicorn sends itself the signal that it got; by default that ends Python without cleaning up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with lock:
        app = create_app(settings)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        address, root_url = f"http://{host}:{settings.port}/", settings.root_url
        seen = address if root_url is None else f"{root_url} through a proxy for {address}"
        say(f"{seen} (jobs in {settings.folder}); stop with Ctrl+C")
        if not page_is_built():
            say(NOT_BUILT)
        uvicorn.run(
            app,
            host=settings.host,
            port=settings.port,
            root_path="" if root_url is None else root_url.path,
            http=HeaderTimeoutProtocol,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            log_config=None,
        )
