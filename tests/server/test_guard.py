"""Who is let in, and what is read of those who are not."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from raylift.server import guard
from raylift.server.app import create_app
from raylift.server.guard import MAX_WRONG_TOKENS, REFUSED_SECONDS, Guard, Refusal, Tokens
from raylift.server.root_url import RootUrl
from raylift.server.settings import ServerSettings

TOKEN = "0123456789abcdef"


@pytest.fixture
def client(tmp_path: Path, weights: Path) -> Iterator[TestClient]:
    settings = ServerSettings(tmp_path / "server", token=TOKEN, weights=str(weights), workers=0)
    with TestClient(create_app(settings), "http://localhost") as client:
        yield client


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Host": "testserver"}]
)
def test_a_body_is_not_read_before_its_sender_is_known(client: TestClient, headers: dict[str, str]) -> None:
    read = []

    def body() -> Iterator[bytes]:
        for _ in range(50):
            read.append(2**20)
            yield bytes(2**20)

    answer = client.post(
        "/api/jobs", content=body(), headers=headers | {"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert answer.status_code in (400, 401, 403)
    assert not list(Path(client.app.state.services.settings.folder).rglob("*.png"))


async def _never_read() -> None:
    raise AssertionError("the body was read")


def test_a_refused_body_is_left_where_it_is(client: TestClient) -> None:
    """By the application's own account: it takes no more than what lets the sender hear the answer."""

    taken = 0

    async def receive() -> dict[str, object]:
        nonlocal taken
        taken += 2**16
        return {"type": "http.request", "body": bytes(2**16), "more_body": True}

    sent = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "path": "/api/jobs",
        "method": "POST",
        "headers": [(b"host", b"localhost")],
        "client": None,
    }
    asyncio.run(client.app(scope, receive, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 401
    assert taken <= guard.MAX_DRAINED_BYTES


def test_the_browser_gets_a_cookie_that_is_not_the_token(client: TestClient) -> None:
    assert client.post("/api/login", json={"token": "wrong"}).status_code == 401
    answer = client.post("/api/login", json={"token": TOKEN})
    assert answer.status_code == 204
    (cookie,) = answer.headers.get_list("set-cookie")
    assert TOKEN not in cookie
    for word in ("HttpOnly", "SameSite=strict", "Path=/"):
        assert word in cookie
    assert "Secure" not in cookie
    assert client.get("/api/about").status_code == 200
    client.cookies.set(guard.COOKIE, "0" * 64)
    assert client.get("/api/about").status_code == 401


def test_behind_tls_the_cookie_stays_there(tmp_path: Path, weights: Path) -> None:
    settings = ServerSettings(tmp_path / "server", token=TOKEN, weights=str(weights), workers=0)
    with TestClient(create_app(settings), "https://localhost") as client:
        assert "Secure" in client.post("/api/login", json={"token": TOKEN}).headers["set-cookie"]


def test_patients_data_are_kept_by_nobody_on_the_way(client: TestClient) -> None:
    answer = client.get("/api/jobs", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert client.get("/api/jobs").headers["cross-origin-resource-policy"] == "same-origin"  # refused


def test_wrong_tokens_make_an_address_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(guard.time, "monotonic", lambda: now)
    tokens = Tokens(TOKEN)
    for _ in range(MAX_WRONG_TOKENS):
        with pytest.raises(Refusal, match="this server needs its token"):
            tokens.check("10.0.0.1", "wrong")
    with pytest.raises(Refusal, match="too many wrong tokens") as raised:
        tokens.check("10.0.0.1", TOKEN)  # right, but guessing is not to be rewarded
    assert raised.value.status == 429
    assert 0 < int(raised.value.headers["Retry-After"]) <= REFUSED_SECONDS + 1
    tokens.check("10.0.0.2", TOKEN)
    now += REFUSED_SECONDS
    tokens.check("10.0.0.1", TOKEN)


def test_who_brings_no_token_at_all_does_not_guess() -> None:
    tokens = Tokens(TOKEN)
    for _ in range(3 * MAX_WRONG_TOKENS):
        with pytest.raises(Refusal):
            tokens.check("10.0.0.1", None)
    tokens.check("10.0.0.1", TOKEN)


def test_addresses_are_not_remembered_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MAX_ADDRESSES", 5)
    tokens = Tokens(TOKEN)
    for number in range(20):
        with pytest.raises(Refusal):
            tokens.check(f"10.0.0.{number}", "wrong")
    assert len(tokens.wrong) == 5


@pytest.mark.parametrize("brought", ["", "Bearer", "Bearer ", "Basic " + TOKEN, "Bearer \xff", "Bearer " + TOKEN[:-1]])
def test_tokens_that_are_none(client: TestClient, brought: str) -> None:
    assert (
        client.get("/api/about", headers=httpx.Headers({"Authorization": brought.encode("latin-1")})).status_code == 401
    )


OUTER = "https://xray.example.org"
OWN = "127.0.0.1:8000"


async def _serve(scope: object, receive: object, send: Callable[[object], Awaitable[None]]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})


def _decide(path: str = "/api/health", *, listen: str = "127.0.0.1", root: str | None = None, **headers: str) -> int:
    """The status of the guard's answer to a request, as uvicorn hands it over; 200 where it is let in."""
    root_url = None if root is None else RootUrl.parse(root)
    prefix = "" if root_url is None else root_url.path
    settings = ServerSettings(Path("server"), listen, token=TOKEN, root_url=root_url)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": prefix + path,
        "root_path": prefix,
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 40000),
    }
    asyncio.run(Guard(_serve, settings, Tokens(TOKEN))(scope, receive, send))  # type: ignore[arg-type]
    assert (b"cross-origin-resource-policy", b"same-origin") in sent[0]["headers"]
    assert ((b"cache-control", b"no-store") in sent[0]["headers"]) == path.startswith("/api/")
    if sent[0]["status"] in (400, 403):
        assert b"--root-url" in sent[1]["body"]  # what to do
    return int(sent[0]["status"])


@pytest.mark.parametrize("prefix", ["", "/raylift"])
@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        # The proxy keeps the Host, with a port or without, or puts the server's own in its place.
        ("xray.example.org", "", 200),
        ("xray.example.org:443", "", 200),
        ("xray.example.org", OUTER, 200),
        (OWN, OUTER, 200),
        ("localhost", OUTER, 200),
        # Without a proxy.
        (OWN, "", 200),
        (OWN, f"http://{OWN}", 200),
        # Names that somebody else points here.
        ("evil.example", "", 400),
        ("evil.example", "http://evil.example", 400),
        ("evil.example", OUTER, 400),
        ("xray.example.org.evil.example", "", 400),
        ("example.org", "", 400),
        ("xray.example.org:443:80", "", 400),
        ("", OUTER, 400),
        # Pages of others, and of the same host at other ports and by other schemes.
        ("xray.example.org", "http://evil.example", 403),
        (OWN, "http://evil.example", 403),
        (OWN, "https://evil.example", 403),
        ("xray.example.org", "null", 403),
        ("xray.example.org", "http://xray.example.org", 403),
        ("xray.example.org", f"{OUTER}:8443", 403),
        ("xray.example.org:8443", f"{OUTER}:8443", 403),
        ("xray.example.org", f"{OUTER}.evil.example", 403),
        ("xray.example.org", "https://other.example.org", 403),
        ("xray.example.org", f"{OUTER}/raylift", 403),
        (OWN, "http://127.0.0.1:9000", 403),
        (OWN, "http://xray.example.org", 403),
        ("xray.example.org", f"http://{OWN}", 403),
    ],
)
def test_who_is_let_in_behind_a_proxy(host: str, origin: str, status: int, prefix: str) -> None:
    headers = {"Host": host} | ({"Origin": origin} if origin else {})
    assert _decide(root=OUTER + prefix, **headers) == status
    forwarded = {"X-Forwarded-Host": "xray.example.org", "X-Forwarded-Proto": "https", "X-Forwarded-For": "127.0.0.1"}
    assert _decide(root=OUTER + prefix, **headers, **forwarded) == status  # they admit nobody
    # Unless the server is told of the proxy, its name is one like any other.
    if status != 200 or "example" in host + origin:
        assert _decide(**headers, **forwarded) in (400, 403)
    else:
        assert _decide(**headers) == 200


@pytest.mark.parametrize("root", [None, "http://localhost:8080", "http://localhost:8080/raylift"])
def test_this_machines_own_names_agree_in_both_headers(root: str | None) -> None:
    assert _decide(root=root, Host="localhost:8000", Origin="http://localhost:8000") == 200
    assert _decide(root=root, Host="localhost:8000", Origin="http://localhost:9000") == 403
    assert _decide(root=root, Host="localhost:8000", Origin="http://localhost:8080") == (403 if root is None else 200)


def test_at_an_address_of_others_the_token_protects() -> None:
    assert _decide(listen="0.0.0.0", root=OUTER, Host="10.0.0.7:8000") == 200
    assert _decide(listen="0.0.0.0", root=OUTER, Host="10.0.0.7:8000", Origin=OUTER) == 200
    assert _decide(listen="0.0.0.0", root=OUTER, Host="10.0.0.7:8000", Origin="http://evil.example") == 403
    assert _decide("/api/jobs", listen="0.0.0.0", root=OUTER, Host="10.0.0.7:8000", Origin=OUTER) == 401


@pytest.mark.parametrize("prefix", ["", "/raylift", "/a", "/api"])
@pytest.mark.parametrize("path", ["/api/jobs", "/api/about", "/api/jobs/../health", "/api/health/", "/api/"])
def test_a_prefix_opens_nothing(path: str, prefix: str) -> None:
    assert _decide(path, root=OUTER + prefix, Host="xray.example.org") == 401
    assert _decide("/api/health", root=OUTER + prefix, Host="xray.example.org") == 200
    assert _decide("/", root=OUTER + prefix, Host="xray.example.org") == 200


@pytest.mark.parametrize(("prefix", "path"), [("/a", "pi/jobs"), ("/api", "jobs"), ("", "api/jobs"), ("/a", "*")])
def test_a_prefix_and_the_rest_of_a_path_are_no_other_path(prefix: str, path: str) -> None:
    """As in `GET pi/jobs HTTP/1.1`, which together with the prefix /a would be /api/jobs."""
    assert _decide(path, root=OUTER + prefix, Host="xray.example.org") == 404


@pytest.mark.parametrize(
    ("root", "path", "secure"),
    [
        (OUTER, "/", True),
        (f"{OUTER}/raylift", "/raylift", True),
        ("http://xray.example.org/raylift", "/raylift", False),
    ],
)
def test_the_cookie_is_for_the_address_that_users_see(
    tmp_path: Path, weights: Path, root: str, path: str, secure: bool
) -> None:
    root_url = RootUrl.parse(root)
    settings = ServerSettings(tmp_path / "server", token=TOKEN, weights=str(weights), workers=0, root_url=root_url)
    with TestClient(create_app(settings), "http://localhost", root_path=root_url.path) as client:
        answer = client.post("/api/login", json={"token": TOKEN}, headers={"Origin": root_url.origin})
        assert answer.status_code == 204
        words = answer.headers["set-cookie"].split("; ")
        assert f"Path={path}" in words
        assert ("Secure" in words) == secure
