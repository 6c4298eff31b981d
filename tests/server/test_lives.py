"""What the server survives: being killed, workers that die, jobs without end."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from uploads import TWO_VIEWS, uploads

from raylift.server.app import page_is_built


def submit(url: str, **options: Any) -> str:
    answer = httpx.post(
        f"{url}/api/jobs",
        files=uploads("a.png", "b.png"),
        data={"options": json.dumps(TWO_VIEWS | options)},
        timeout=60,
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def states(url: str) -> dict[str, str]:
    return {job["id"]: job["state"] for job in httpx.get(f"{url}/api/jobs", timeout=30).json()}


def results(folder: Path, job_id: str) -> list[Path]:
    return [path for path in (folder / "jobs" / job_id).iterdir() if path.is_dir()]


def test_a_killed_server_loses_nothing_and_does_nothing_twice(tmp_path: Path, serve: Callable[..., Any]) -> None:
    with serve(tmp_path) as server:
        ids = [submit(server.url, refine=number == 0) for number in range(4)]
        server.until(lambda: states(server.url)[ids[0]] == "running")
        assert len(server.children()) >= 2  # a worker, and the reader
        server.kill()
    with serve(tmp_path) as server:
        server.until(lambda: set(states(server.url).values()) == {"done"}, 180)
        assert set(states(server.url)) == set(ids)
        for job_id in ids:
            assert len(results(tmp_path, job_id)) == 1
            assert not list((tmp_path / "jobs" / job_id).glob(".*"))


def test_a_stopped_server_goes_on_later(tmp_path: Path, serve: Callable[..., Any]) -> None:
    with serve(tmp_path) as server:
        job_id = submit(server.url, refine=True)
    with serve(tmp_path) as server:
        server.until(lambda: states(server.url)[job_id] == "done", 120)


def test_it_ends_quietly_when_told_to(tmp_path: Path, serve: Callable[..., Any]) -> None:
    with serve(tmp_path / "server") as server:
        server.until(lambda: httpx.get(f"{server.url}/api/health").json()["workers"] == 1)
        server.stop(signal.SIGTERM)
        server.log.seek(0)
        lines = server.log.read().splitlines()
        # The line with its address, and another one in a clone whose page is not built.
        assert (server.process.returncode, len(lines)) == (0, 1 + (not page_is_built())), lines


def test_a_job_without_end_is_ended(tmp_path: Path, serve: Callable[..., Any]) -> None:
    with serve(tmp_path, "--seconds", "1") as server:
        slow = submit(server.url, refine=True)
        server.until(lambda: states(server.url)[slow] == "failed")
        assert httpx.get(f"{server.url}/api/jobs/{slow}").json()["error"] == "took longer than 1 s"


def test_one_folder_one_server(tmp_path: Path, serve: Callable[..., Any], weights: Path) -> None:
    with serve(tmp_path):
        second = subprocess.run(
            [sys.executable, "-m", "raylift", "serve", "--folder", tmp_path, "--weights", weights],
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode == 2
        assert "another server uses it" in second.stderr
