"""Every test of training runs with the tiny network, on one thread, and draws pictures only where it looks at them."""

from pathlib import Path
from typing import Any

import pytest

from raylift.training import validation


@pytest.fixture(autouse=True, scope="session")
def _one_thread(one_thread: None) -> None:
    pass


@pytest.fixture(autouse=True)
def _no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def blank(truth: Any, volume: Any, xrays: Any, path: Path, title: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(validation, "montage", blank)


@pytest.fixture
def pictures() -> None:
    """For a test that looks at pictures."""
