"""What the server says of jobs, X-rays and itself."""

from __future__ import annotations

from pydantic import BaseModel, Field

from raylift.server.jobs import Job, State
from raylift.server.requests import OrientationOption
from raylift.server.settings import Settings
from raylift.server.worker import RESULTS


class Problem(BaseModel):
    """What went wrong, in one sentence."""

    detail: str


class Understood(BaseModel):
    """An X-ray as it is understood."""

    name: str
    view: str | None = Field(description="By what was asked, the file, or its looks; null if that is not certain.")
    sure: bool
    turnable: bool = Field(description="A picture, whose orientation can be corrected.")
    orientation: OrientationOption
    picture: str = Field(description="PNG as a data URL, as it is taken.")


class Inspection(BaseModel):
    """X-rays as they are understood."""

    xrays: list[Understood]


class JobState(BaseModel):
    """A job."""

    id: str
    state: State
    title: str
    created: float = Field(description="Seconds since 1970.")
    started: float | None
    ended: float | None
    place: int | None = Field(description="How many jobs wait before this one, while it waits.")
    progress: float = Field(ge=0, le=1)
    note: str
    error: str | None
    xrays: list[str] = Field(description="Names of the files.")
    files: list[str] = Field(description="What can be fetched under /api/jobs/{id}/files/.")


class Health(BaseModel):
    """Whether the server can work."""

    able: bool
    workers: int = Field(description="Processes that reconstruct and live.")
    wanted: int = Field(description="How many there should be.")


class About(BaseModel):
    """The server."""

    version: str
    weights: str | None
    waiting: int
    most_waiting: int
    health: Health
    purpose: str


class Login(BaseModel):
    """The server's token."""

    token: str = Field(max_length=1000)


def state_of(job: Job, settings: Settings, waiting: list[str]) -> JobState:
    """Return what is said of a job, given the ids of those that wait, the next one first."""
    folder = settings.job(job.id) / (job.claim or "none")
    files = [name for name in RESULTS if (folder / name).is_file()] if job.state == "done" else []
    return JobState(
        **{name: getattr(job, name) for name in ("id", "state", "created", "started", "ended", "progress", "note")},
        title=job.options.get("title", ""),
        place=waiting.index(job.id) if job.state == "queued" and job.id in waiting else None,
        error=job.error,
        xrays=job.options.get("names", []),
        files=files,
    )
