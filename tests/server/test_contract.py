"""Whatever a client sends, as the interface's own description allows it or not: never an error of the server's."""

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode

from raylift.server.app import create_app
from raylift.server.settings import ServerSettings

TAKE_NOTHING = ("GET /api/about", "GET /api/jobs", "GET /api/health")  # so that nothing can be wrong


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_request_is_the_servers_fault(tmp_path: Path, weights: Path, mode: GenerationMode) -> None:
    app = create_app(ServerSettings(tmp_path, weights=str(weights), workers=0, waiting=5))
    with TestClient(app, "http://localhost"):
        schema = schemathesis.openapi.from_asgi("/api/openapi.json", app, headers={"Host": "localhost"})
        operations = [found.ok() for found in schema.get_all_operations()]
        assert len(operations) == 10
        for operation in operations:
            if mode is GenerationMode.NEGATIVE and operation.label in TAKE_NOTHING:
                continue

            @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                case.call_and_validate(
                    base_url="http://localhost",
                    headers={"Host": "localhost"},
                    checks=(not_a_server_error,),
                    timeout=120,  # of a busy machine
                )

            ask()
