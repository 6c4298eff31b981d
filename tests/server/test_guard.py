"""Who is let in, and what is read of those who are not."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from raylift.server import guard
from raylift.server.app import create_app
from raylift.server.guard import MAX_WRONG_TOKENS, REFUSED_SECONDS, Refusal, Tokens
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
