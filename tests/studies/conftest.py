"""Every study of these tests trains the tiny network."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def _tiny(tiny_network: None) -> None:
    pass
