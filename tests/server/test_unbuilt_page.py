"""In a clone whose page is not built, the server says how to build it, and everything else works."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from raylift.server import app, run
from raylift.server.settings import ServerSettings
from repository import ROOT


@pytest.fixture(params=[False, True], ids=["no folder", "an empty folder"])
def static(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the page would be."""
    monkeypatch.setattr(app, "PAGE", tmp_path / "static")
    if request.param:
        (tmp_path / "static").mkdir()
    return tmp_path / "static"


@pytest.fixture
def client(static: Path, tmp_path: Path, weights: Path) -> Iterator[TestClient]:
    settings = ServerSettings(tmp_path / "server", weights=str(weights), workers=0)
    with TestClient(app.create_app(settings), "http://localhost") as client:
        yield client


def test_the_browser_is_told_how_to_build_it(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    for words in ("not built", "make web", "Node.js", "Wheels contain the page", "works without it"):
        assert words in answer.text
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400


def test_programs_do_not_notice(client: TestClient) -> None:
    assert client.get("/api/health").status_code == 200
    assert client.get("/api/jobs").json() == []
    assert "/" not in client.get("/api/openapi.json").json()["paths"]


@pytest.mark.parametrize("built", [False, True])
def test_the_terminal_tells_how_to_build_it(
    static: Path, built: bool, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if built:
        static.mkdir(exist_ok=True)
        (static / "index.html").touch()
    monkeypatch.setattr(run.uvicorn, "run", lambda *_, **__: None)
    monkeypatch.setattr(run.signal, "signal", lambda *_: None)
    lines: list[Any] = []
    run.run(ServerSettings(tmp_path / "server", weights=str(weights)), lines.append)
    assert [("make web" in line, "http://127.0.0.1:8000/" in line) for line in lines] == [
        (False, True),
        *([] if built else [(True, False)]),
    ]


def test_the_demonstration_needs_no_nodejs() -> None:
    would = subprocess.run(["make", "-n", "-B", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "raylift demo" in would
    assert "npm" not in would
    would = subprocess.run(["make", "-n", "-B", "web"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "npm" in would
