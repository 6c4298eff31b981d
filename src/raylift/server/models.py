"""What the server answers about jobs, X-rays and itself."""

from __future__ import annotations

from pydantic import BaseModel, Field

from raylift.server.jobs import Job, State
from raylift.server.options import OrientationOptions
from raylift.server.settings import ServerSettings
from raylift.server.worker import RESULT_FILES


class Problem(BaseModel):
    """What went wrong, in one sentence."""

    detail: str


class XrayInspection(BaseModel):
    """One X-ray's view, orientation and picture, as a job would use them."""

    name: str
    view: str | None = Field(
        description="From the options, from the file, or recognised in the picture; null if it is not certain."
    )
    sure: bool = Field(description="Whether the view is certain.")
    turnable: bool = Field(description="Whether it is a picture, whose orientation can be corrected.")
    orientation: OrientationOptions
    picture: str = Field(description="PNG as a data URL, in this orientation.")


class Inspection(BaseModel):
    """The X-rays of a request, as a job would use them."""

    xrays: list[XrayInspection]


class JobState(BaseModel):
    """The state of a job."""

    id: str
    state: State
    title: str
    created: float = Field(description="Seconds since 1970.")
    started: float | None = Field(description="Seconds since 1970.")
    ended: float | None = Field(description="Seconds since 1970.")
    place: int | None = Field(description="How many jobs wait before this one; null unless it waits.")
    progress: float = Field(ge=0, le=1)
    note: str = Field(description="The step that is running.")
    error: str | None = Field(description="Why it failed, in one sentence.")
    xrays: list[str] = Field(description="Names of the files.")
    files: list[str] = Field(description="Names of the results, to be fetched under /api/jobs/{id}/files/.")


class Health(BaseModel):
    """Whether the server can work."""

    able: bool
    workers: int = Field(description="Number of running worker processes.")
    wanted: int = Field(description="Number of worker processes that should run.")


class About(BaseModel):
    """The server's version, weights, queue and health."""

    version: str
    weights: str | None = Field(description="Name of the weights; null for the embedded ones.")
    waiting: int = Field(description="Number of jobs that wait.")
    most_waiting: int = Field(description="Number of jobs that may wait.")
    health: Health
    purpose: str


class Login(BaseModel):
    """The server's token."""

    token: str = Field(max_length=1000)


def job_state(job: Job, settings: ServerSettings, waiting: list[str]) -> JobState:
    """Return the state of a job as clients see it.

    Args:
        job: a row of the job list.
        settings: the server's settings.
        waiting: ids of the waiting jobs, the next one first.
    """
    folder = settings.job(job.id) / (job.claim or "none")
    files = [name for name in RESULT_FILES if (folder / name).is_file()] if job.state == "done" else []
    return JobState(
        **{name: getattr(job, name) for name in ("id", "state", "created", "started", "ended", "progress", "note")},
        title=job.options.get("title", ""),
        place=waiting.index(job.id) if job.state == "queued" and job.id in waiting else None,
        error=job.error,
        xrays=job.options.get("names", []),
        files=files,
    )
