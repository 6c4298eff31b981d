"""A client of `raylift serve`; it needs only requests, which comes with 3D Slicer."""

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
    """Raised where the server does not answer, refuses a request, or a job fails; says why in one sentence."""


class Client:
    """A client of one server.

    Args:
        url: the server's address, like "http://127.0.0.1:8000".
        token: the server's token, if it needs one.
    """

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url.rstrip("/")
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def submit(self, files: Sequence[Path], views: Sequence[str | None], *, refine: bool = False) -> str:
        """Submit a job and return its id; a view of None is taken from the file. Raises Refused."""
        options = {"xrays": [{"view": view} for view in views], "refine": refine}
        options["title"] = ", ".join(path.name for path in files)[:100]
        with ExitStack() as opened:
            parts = [("xrays", (path.name, opened.enter_context(path.open("rb")))) for path in files]
            answer = self._request("POST", "/api/jobs", files=parts, data={"options": json.dumps(options)})
        return str(answer.json()["id"])

    def states(self, job_id: str, seconds: float = 0.5) -> Iterator[dict[str, Any]]:
        """Yield the job's state every few seconds until the job has ended. Raises Refused."""
        while True:
            job = self._request("GET", f"/api/jobs/{job_id}").json()
            yield job
            if job["state"] in ENDED:
                return
            time.sleep(seconds)

    def fetch(self, job_id: str, name: str, path: Path) -> Path:
        """Save a result file to `path`, and return the path. Raises Refused."""
        path.write_bytes(self._request("GET", f"/api/jobs/{job_id}/files/{name}").content)
        return path

    def cancel(self, job_id: str) -> None:
        """Cancel a job, or remove one that has ended. Raises Refused."""
        self._request("DELETE", f"/api/jobs/{job_id}")

    def reconstruct(
        self,
        files: Sequence[Path],
        views: Sequence[str | None],
        folder: Path,
        *,
        refine: bool = False,
        progress: Callable[[str, float], bool] = lambda note, done: True,
    ) -> tuple[Path, Path | None, str]:
        """Reconstruct X-rays and save the results.

        Args:
            files: the X-rays.
            views: one view for each file; None takes it from the file.
            folder: folder for the results.
            refine: whether the volume is brought into agreement with the X-rays.
            progress: called with a note and a number from 0 to 1; the job is cancelled if it returns False.

        Returns:
            The path of the volume, the path of its uncertainty if there is one, and a sentence on how far to trust it.

        Raises:
            Refused: the server refused the X-rays, or the job failed or was cancelled.
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
        report = self._request("GET", f"/api/jobs/{job_id}/files/report.json").json()
        return volume, uncertainty, report["trust"]

    def _request(self, method: str, path: str, **arguments: Any) -> requests.Response:
        try:
            answer = requests.request(method, self.url + path, headers=self.headers, timeout=TIMEOUT, **arguments)
        except requests.RequestException as problem:
            raise Refused(f"{self.url} does not answer ({type(problem).__name__}); is raylift serve running?") from None
        if not answer.ok:
            try:
                detail = answer.json()["detail"]
            except (ValueError, KeyError, TypeError):
                detail = f"status {answer.status_code}"
            raise Refused(detail if isinstance(detail, str) else json.dumps(detail))
        return answer
