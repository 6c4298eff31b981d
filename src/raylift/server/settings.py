"""A server's settings: its folder, its address and token, and its limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from raylift.errors import WrongUsage
from raylift.server.root_url import RootUrl

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")  # as URLs and the header Host have them


@dataclass(frozen=True)
class ServerSettings:
    """The settings of one server.

    Args:
        folder: folder of the job list and of the jobs' files.
        host: address to listen at.
        port: port to listen at.
        token: token of at least 16 characters that requests have to send; required unless `host` and that of `root_url`
            are loopback addresses.
        weights: weights to reconstruct with, see `raylift.model.weights.load_weights`.
        workers: number of processes that reconstruct.
        waiting: how many jobs may wait.
        seconds: the longest time that a job may take.
        upload_bytes: the largest size of a request.
        root_url: the address that users see, where a proxy is in front of the server.
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
    root_url: RootUrl | None = None

    def __post_init__(self) -> None:
        if self.host not in LOOPBACK and not self.token:
            raise WrongUsage(f"--host {self.host}: others can reach it, so it needs a token: give --token-file")
        if self.root_url is not None and self.root_url.host not in LOOPBACK_HOSTS and not self.token:
            raise WrongUsage(f"--root-url {self.root_url}: others can reach it, so it needs a token: give --token-file")
        if self.token is not None and (len(self.token) < 16 or not self.token.isprintable()):
            remedy = "give at least 16 printable characters, like those of `openssl rand -hex 16`"
            raise WrongUsage(f"the token (--token-file or RAYLIFT_TOKEN): {remedy}")

    @property
    def database(self) -> Path:
        """The path of the job list."""
        return self.folder / "jobs.sqlite"

    @property
    def jobs(self) -> Path:
        """The folder with a folder for each job: its X-rays until it ends, its results afterwards."""
        return self.folder / "jobs"

    @property
    def uploads(self) -> Path:
        """The folder with a folder for each request that uploads X-rays, until it is answered."""
        return self.folder / "uploads"

    @property
    def work(self) -> Path:
        """The folder with a folder for each running attempt, named after its claim."""
        return self.folder / "work"

    def job(self, job_id: str) -> Path:
        """Return the folder of a job."""
        return self.jobs / job_id
