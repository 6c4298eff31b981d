"""Clients that send slowly are let go; others do not notice them."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from raylift.server import timeouts
from raylift.server.app import create_app
from raylift.server.settings import ServerSettings

HEADERS = 1.0
BODY = 1.5


@pytest.fixture
def port(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server of short patience, in a thread."""
    monkeypatch.setattr(timeouts, "HEADER_SECONDS", HEADERS)
    monkeypatch.setattr(timeouts, "BODY_SECONDS", BODY)
    app = create_app(ServerSettings(tmp_path / "server", weights=str(weights), workers=0))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, http=timeouts.HeaderTimeoutProtocol, limit_concurrency=30, log_level="critical")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join()


def closed_within(client: socket.socket, seconds: float, drip: bytes = b"") -> bytes | None:
    """What the server says before it closes; None where it does not in time. Sends a byte now and then."""
    end, heard = time.monotonic() + seconds, b""
    client.settimeout(0.1)
    while time.monotonic() < end:
        try:
            said = client.recv(65536)
            if not said:
                return heard
            heard += said
        except TimeoutError:
            pass
        except ConnectionError:
            return heard
        if drip:
            try:
                client.sendall(drip)
            except ConnectionError:
                return heard
    return None


@pytest.mark.parametrize(
    ("start", "drip"),
    [(b"", b""), (b"GET / HTTP/1.1\r\n", b"X"), (b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\n", b"a: b\r\n")],
)
def test_headers_that_do_not_come(port: int, start: bytes, drip: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(start)
        assert closed_within(client, HEADERS + 3, drip) is not None


def test_a_connection_that_was_good_once(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.settimeout(5)
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        client.sendall(b"GET /api/health HTTP/1.1\r\n")
        assert closed_within(client, HEADERS + 3, b"X") is not None


def test_a_body_that_does_not_come(port: int) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="xrays"; filename="a.png"\r\n\r\n'
    head = b"POST /api/inspect HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    for end, drip in ((b"Content-Length: 100000\r\n\r\n" + part, b"-"), (b"Transfer-Encoding: chunked\r\n\r\n", b"")):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(head + end)
            heard = closed_within(client, BODY + 3, drip)
            assert heard is not None
            assert heard.startswith(b"HTTP/1.1 408")
            assert b"the request came too slowly" in heard


def test_others_do_not_notice(port: int) -> None:
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    for client in slow:
        client.sendall(b"POST /api/inspect HTTP/1.1\r\nHost: local")
    assert httpx.get(f"http://127.0.0.1:{port}/api/health", timeout=5).status_code == 200
    more: list[socket.socket] = []
    while httpx.get(f"http://127.0.0.1:{port}/api/health", timeout=5).status_code == 200:  # until they are too many
        assert len(more) < 200
        more += [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    time.sleep(HEADERS + 0.5)
    assert httpx.get(f"http://127.0.0.1:{port}/api/health", timeout=5).status_code == 200
    for client in slow + more:
        client.close()
