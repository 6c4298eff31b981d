"""Every test of training runs with the tiny network, on one thread."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def _one_thread(one_thread: None) -> None:
    pass
