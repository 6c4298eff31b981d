"""What a server is told: where it keeps things, whom it lets in, and how much it takes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from raylift.errors import WrongUsage

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Settings:
    """Of one server.

    Args:
        folder: for the list of jobs and their files.
        host: address to listen at.
        port: to listen at.
        token: that a request has to bring; needed at any address but this machine's own.
        weights: see `raylift.weights.load_weights`.
        workers: processes that reconstruct.
        waiting: how many jobs may wait.
        seconds: that a job may take.
        upload_bytes: of one request.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    weights: str | None = None
    workers: int = 1
    waiting: int = 50
    seconds: float = 600.0
    upload_bytes: int = 256 * 2**20

    def __post_init__(self) -> None:
        if self.host not in LOOPBACK and not self.token:
            raise WrongUsage(f"--host {self.host}: others can reach it, so it needs a --token")
        if self.token is not None and len(self.token) < 16:
            raise WrongUsage("--token: give at least 16 characters, like those of `openssl rand -hex 16`")

    @property
    def database(self) -> Path:
        """The list of jobs."""
        return self.folder / "jobs.sqlite"

    def job(self, job_id: str) -> Path:
        """The folder of a job."""
        return self.folder / "jobs" / job_id
