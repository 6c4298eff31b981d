"""A server in this process, and real ones as processes of their own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from helpers import random_weights
from live_server import Server
from raylift.server.app import create_app
from raylift.server.settings import ServerSettings


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[TestClient]:
    settings = ServerSettings(tmp_path_factory.mktemp("server"), weights=str(weights), upload_bytes=8 * 2**20)
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        yield client


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the embedded weights, for all of a module's tests that ask nothing special of it."""
    server = Server(tmp_path_factory.mktemp("live") / "server", None)
    yield server
    server.stop()


@pytest.fixture
def serve(weights: Path) -> Callable[..., object]:
    """Starts a server with random weights, unless others are named, and stops it at the end."""
    random = weights

    @contextmanager
    def started(folder: Path, *arguments: str, weights: Path | None = random) -> Iterator[Server]:
        server = Server(folder, weights, *arguments)
        try:
            yield server
        finally:
            if server.process.poll() is None:
                server.stop()

    return started
