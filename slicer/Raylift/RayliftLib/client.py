"""Talks to `raylift serve`; needs only requests, which 3D Slicer brings along."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests

ENDED = ("done", "failed", "cancelled")
TIMEOUT = 120.0  # seconds for one answer


class Refused(Exception):
    """The server's answer, as one sentence."""


class Client:
    """A server of reconstructions.

    Args:
        url: of the server, like "http://127.0.0.1:8000".
        token: that the server asks for, if any.
    """

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url.rstrip("/")
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def submit(self, files: Sequence[Path], views: Sequence[str | None], *, refine: bool = False) -> str:
        """Hand in X-rays, one view for each (None where the file says it); returns the job's id. Raises Refused."""
        options = {"xrays": [{"view": view} for view in views], "refine": refine}
        options["title"] = ", ".join(path.name for path in files)[:100]
        with ExitStack() as opened:
            parts = [("xrays", (path.name, opened.enter_context(path.open("rb")))) for path in files]
            answer = self._ask("POST", "/api/jobs", files=parts, data={"options": json.dumps(options)})
        return str(answer.json()["id"])

    def states(self, job_id: str, seconds: float = 0.5) -> Iterator[dict[str, Any]]:
        """The job, every so many seconds, until it has ended. Raises Refused."""
        while True:
            job = self._ask("GET", f"/api/jobs/{job_id}").json()
            yield job
            if job["state"] in ENDED:
                return
            time.sleep(seconds)

    def fetch(self, job_id: str, name: str, path: Path) -> Path:
        """Save a result. Raises Refused."""
        path.write_bytes(self._ask("GET", f"/api/jobs/{job_id}/files/{name}").content)
        return path

    def cancel(self, job_id: str) -> None:
        """Cancel a job, or remove one that has ended. Raises Refused."""
        self._ask("DELETE", f"/api/jobs/{job_id}")

    def reconstruct(
        self,
        files: Sequence[Path],
        views: Sequence[str | None],
        folder: Path,
        *,
        refine: bool = False,
        progress: Callable[[str, float], bool] = lambda note, done: True,
    ) -> tuple[Path, Path | None, str]:
        """From X-rays to files.

        Args:
            files: X-rays.
            views: one for each; None where the file says it.
            folder: for the results.
            refine: bring the volume into agreement with the X-rays.
            progress: called with a note and a share of 1; False cancels.

        Returns:
            The volume, its uncertainty if there is one, and how far to trust it.

        Raises:
            Refused: by the server, or because it was cancelled.
        """
        job_id = self.submit(files, views, refine=refine)
        job: dict[str, Any] = {}
        for job in self.states(job_id):
            if not progress(job["note"] or job["state"], job["progress"]) and job["state"] not in ENDED:
                self.cancel(job_id)
        if job["state"] != "done":
            raise Refused(job["error"] or f"the job was {job['state']}")
        volume = self.fetch(job_id, "volume.nrrd", folder / "volume.nrrd")
        uncertainty = None
        if "uncertainty.nrrd" in job["files"]:
            uncertainty = self.fetch(job_id, "uncertainty.nrrd", folder / "uncertainty.nrrd")
        report = self._ask("GET", f"/api/jobs/{job_id}/files/report.json").json()
        return volume, uncertainty, report["trust"]

    def _ask(self, method: str, path: str, **more: Any) -> requests.Response:
        try:
            answer = requests.request(method, self.url + path, headers=self.headers, timeout=TIMEOUT, **more)
        except requests.RequestException as problem:
            raise Refused(f"{self.url} does not answer ({type(problem).__name__}); is raylift serve running?") from None
        if not answer.ok:
            try:
                detail = answer.json()["detail"]
            except (ValueError, KeyError, TypeError):
                detail = f"status {answer.status_code}"
            raise Refused(detail if isinstance(detail, str) else json.dumps(detail))
        return answer
