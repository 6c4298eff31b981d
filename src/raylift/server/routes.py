"""The routes of the HTTP interface."""

import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, File, Form, HTTPException, Request, Response, UploadFile
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from raylift.about import NOT_MEDICAL, __version__
from raylift.errors import BadInput
from raylift.server.broadcast import JobBroadcaster
from raylift.server.guard import COOKIE, Tokens, address_of
from raylift.server.jobs import Job, JobList, QueueFull
from raylift.server.models import About, Health, Inspection, JobState, Login, Problem, job_state
from raylift.server.options import MAX_XRAYS, Options, XrayOptions, check_suffix, display_name, storage_name
from raylift.server.reader_pool import Busy, ReaderPool, Unreadable
from raylift.server.settings import ServerSettings
from raylift.server.supervisor import Supervisor
from raylift.server.upload_reader import ReadRequest
from raylift.server.worker import RESULT_FILES
from raylift.server.xrays_file import XRAYS_FILE

MAX_LISTED = 100
QUEUE_FULL = "too many jobs wait; try again later"

router = APIRouter()


@dataclass
class Services:
    """The objects that the routes share, kept in `app.state.services`.

    Args:
        settings: the server's settings.
        jobs: the job list.
        supervisor: watches the workers.
        readers: reads uploads.
        tokens: checks tokens.
    """

    settings: ServerSettings
    jobs: JobList
    supervisor: Supervisor
    readers: ReaderPool
    tokens: Tokens
    broadcaster: JobBroadcaster = field(init=False)

    def __post_init__(self) -> None:
        self.broadcaster = JobBroadcaster(
            lambda ids: {state.id: state for state in self.states(list(self.jobs.get_many(ids).values()))}
        )

    def states(self, jobs: list[Job]) -> list[JobState]:
        """Return the states of jobs as clients see them."""
        waiting = self.jobs.waiting_ids() if any(job.state == "queued" for job in jobs) else []
        return [job_state(job, self.settings, waiting) for job in jobs]

    def health(self) -> Health:
        """Return whether the server can work."""
        return Health(
            able=self.supervisor.can_work(), workers=self.supervisor.count_workers(), wanted=self.settings.workers
        )


def get_services(request: Request) -> Services:
    """Return the services of the application that received a request."""
    services: Services = request.app.state.services
    return services


JobId = Annotated[str, PathParameter(pattern="^[0-9a-f]{32}$", description="The job's id, as in its state.")]
ServicesDependency = Annotated[Services, Depends(get_services)]
Files = Annotated[
    list[UploadFile],
    File(
        min_length=1,
        max_length=MAX_XRAYS,
        description="DICOM, PNG, JPEG, TIFF; or line integrals: .npy, .nii.gz, .mha.",
    ),
]
OptionsText = Annotated[
    str, Form(max_length=20000, description="JSON of an Options object: views, refinement and so on.")
]
UPLOAD_ERRORS: dict[int | str, dict[str, Any]] = {
    413: {"model": Problem, "description": "Too large."},
    422: {"model": Problem, "description": "The X-rays or the options cannot be used."},
    503: {"model": Problem, "description": "Too many uploads at once, or the server cannot work."},
    507: {"model": Problem, "description": "The server's disk is full."},
}
NOT_FOUND_ERRORS: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "There is no such job or file."},
    422: {"model": Problem, "description": "This cannot be the id of a job."},
}


def get_job(job_id: JobId, services: ServicesDependency) -> Job:
    """Return the job with the id in the request's path.

    Raises:
        HTTPException: 404, there is no such job.
    """
    job = services.jobs.get(job_id)
    if job is None:
        raise HTTPException(404, "no such job")
    return job


JobDependency = Annotated[Job, Depends(get_job)]


def get_job_to_follow(job: JobDependency, services: ServicesDependency) -> Job:
    """Return the job with the id in the request's path, if one more client may follow jobs.

    Raises:
        HTTPException: 503, too many clients follow jobs.
    """
    if services.broadcaster.full:
        raise HTTPException(503, "too many follow jobs at once; try again later", {"Retry-After": "10"})
    return job


@router.post("/api/login", status_code=204, responses={401: {"model": Problem, "description": "The token is wrong."}})
def login(request: Request, response: Response, credentials: Login, services: ServicesDependency) -> None:
    """Exchange the token for a cookie, which browsers send with their further requests."""
    services.tokens.check(address_of(request.scope), credentials.token)
    root_url = services.settings.root_url
    response.set_cookie(
        COOKIE,
        services.tokens.cookie,
        path=request.scope.get("root_path") or "/",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https" or (root_url is not None and root_url.encrypted),
    )


@router.get("/api/health", responses={503: {"model": Health, "description": "The server cannot work."}})
def health(response: Response, services: ServicesDependency) -> Health:
    """Return whether the server can work; needs no token."""
    state = services.health()
    response.status_code = 200 if state.able else 503
    return state


@router.get("/api/about")
def about(services: ServicesDependency) -> About:
    """Return the server's version, weights and health, and how many jobs wait."""
    return About(
        version=__version__,
        weights=services.settings.weights and Path(services.settings.weights).name,
        waiting=services.jobs.count("queued"),
        most_waiting=services.settings.waiting,
        health=services.health(),
        purpose=NOT_MEDICAL,
    )


@router.post("/api/inspect", responses=UPLOAD_ERRORS)
async def inspect(xrays: Files, services: ServicesDependency, options: OptionsText = "{}") -> Inspection:
    """Return the view, the orientation and a picture of each X-ray, without storing the files."""
    parsed = Options.model_validate_json(options)
    with _upload_folder(services.settings) as folder:
        result, _ = await _read_upload(services, xrays, parsed, folder, whole=False)
    return Inspection.model_validate(result)


@router.post(
    "/api/jobs",
    status_code=201,
    responses={**UPLOAD_ERRORS, 429: {"model": Problem, "description": "Too many jobs wait."}},
)
async def submit(
    xrays: Files, request: Request, response: Response, services: ServicesDependency, options: OptionsText = "{}"
) -> JobState:
    """Add a job that reconstructs the X-rays.

    Returns:
        The new job's state; its address is in the header Location.
    """
    parsed = Options.model_validate_json(options)
    await run_in_threadpool(_check_room, services)
    job_id = secrets.token_hex(16)
    with _upload_folder(services.settings) as folder:
        _, names = await _read_upload(services, xrays, parsed, folder, whole=True)
        job = await run_in_threadpool(_add_job, services, job_id, folder, parsed.model_dump() | {"names": names})
    response.headers["Location"] = request.url_for("show_job", job_id=job_id).path
    return (await run_in_threadpool(services.states, [job]))[0]


@router.get("/api/jobs")
def list_jobs(services: ServicesDependency) -> list[JobState]:
    """Return the states of the newest jobs, the newest first."""
    return services.states(services.jobs.newest(MAX_LISTED))


@router.get("/api/jobs/{job_id}", responses=NOT_FOUND_ERRORS)
def show_job(job: JobDependency, services: ServicesDependency) -> JobState:
    """Return the state of a job."""
    return services.states([job])[0]


@router.get(
    "/api/jobs/{job_id}/events",
    response_class=EventSourceResponse,
    responses={**NOT_FOUND_ERRORS, 503: {"model": Problem, "description": "Too many clients follow jobs."}},
)
async def follow(
    job: Annotated[Job, Depends(get_job_to_follow)], services: ServicesDependency
) -> AsyncIterator[ServerSentEvent]:
    """Yield the job's state whenever it changes, until the job has ended, as server-sent events named `job`."""
    async for state in services.broadcaster.follow(job.id):
        yield ServerSentEvent(event="job", data=state)


@router.delete("/api/jobs/{job_id}", status_code=204, responses=NOT_FOUND_ERRORS)
def cancel(job: JobDependency, services: ServicesDependency) -> None:
    """Cancel a job that has not ended; remove one that has ended, with its files."""
    state = services.jobs.cancel(job.id)
    # The files of a running job are removed by its worker.
    if state == "queued" or (state is None and services.jobs.remove(job.id)):
        shutil.rmtree(services.settings.job(job.id), ignore_errors=True)


@router.get("/api/jobs/{job_id}/files/{name}", response_class=FileResponse, responses=NOT_FOUND_ERRORS)
def fetch(
    job: JobDependency,
    services: ServicesDependency,
    name: Literal[tuple(RESULT_FILES)],  # type: ignore[valid-type]
    download: bool = False,
) -> FileResponse:
    """Return a result file; with `download`, browsers save it instead of showing it."""
    path = _result_path(services.settings, job, name)
    return FileResponse(path, media_type=RESULT_FILES[name], filename=f"raylift-{name}" if download else None)


@contextmanager
def _upload_folder(settings: ServerSettings) -> Iterator[Path]:
    """Create a folder for one request's uploads, and remove it after the block.

    Yields:
        The folder's path.
    """
    folder = settings.uploads / secrets.token_hex(16)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _read_upload(
    services: Services, files: list[UploadFile], options: Options, folder: Path, whole: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Store uploads in a folder and read them in a process of their own.

    Args:
        services: the server's services.
        files: the uploads.
        options: options of the X-rays; without any, all is read from the files.
        folder: the request's folder.
        whole: whether the X-rays are those of a job; else they are only inspected.

    Returns:
        The fields of `raylift.server.models.Inspection`, and the client's names of the files.

    Raises:
        HTTPException: 422, the files or options cannot be used; 503, too many uploads at once.
    """
    xrays = options.xrays or [XrayOptions(view=None)] * len(files)
    if len(xrays) != len(files):
        raise HTTPException(422, f"{len(files)} files, but options for {len(xrays)} X-rays")
    names = tuple(display_name(file.filename) for file in files)
    try:
        stored = await run_in_threadpool(_store_uploads, files, folder)
        request = ReadRequest(services.settings.weights, folder, stored, names, tuple(xrays), whole)
        result = await services.readers.read(request)
    except BadInput as problem:
        raise HTTPException(422, str(problem)) from None
    except Busy:
        raise HTTPException(503, "too many uploads at once; try again soon", {"Retry-After": "2"}) from None
    except Unreadable:
        raise HTTPException(422, "the X-rays cannot be read: reading them failed or took too long") from None
    if "error" in result:
        raise HTTPException(422, result["error"])
    return result, names


def _store_uploads(files: list[UploadFile], folder: Path) -> tuple[str, ...]:
    """Write uploads to a folder. Raises BadInput, through `check_suffix`, for a format that is not accepted.

    Returns:
        The names of the files in the folder.
    """
    for file in files:
        check_suffix(file.filename)
    names = tuple(storage_name(index, file.filename) for index, file in enumerate(files))
    for name, file in zip(names, files, strict=True):
        with (folder / name).open("wb") as target:
            shutil.copyfileobj(file.file, target)
    return names


def _check_room(services: Services) -> None:
    """Check that the server can work and that one more job may wait.

    Raises:
        HTTPException: 503, the server cannot work; 429, too many jobs wait.
    """
    if not services.supervisor.can_work():
        raise HTTPException(503, "the server cannot work at the moment; try again later", {"Retry-After": "10"})
    if services.jobs.count("queued") >= services.settings.waiting:
        raise HTTPException(429, QUEUE_FULL, {"Retry-After": "10"})


def _add_job(services: Services, job_id: str, upload: Path, options: dict[str, Any]) -> Job:
    """Move the X-rays that were read to the job's folder, and add the job to the list.

    Returns:
        The new job.

    Raises:
        HTTPException: 429, too many jobs wait.
    """
    folder = services.settings.job(job_id)
    folder.mkdir(parents=True)
    try:
        (upload / XRAYS_FILE).rename(folder / XRAYS_FILE)
        return services.jobs.add(job_id, options)
    except BaseException as problem:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(problem, QueueFull):
            raise HTTPException(429, QUEUE_FULL, {"Retry-After": "10"}) from None
        raise


def _result_path(settings: ServerSettings, job: Job, name: str) -> Path:
    """Return the path of a job's result.

    Raises:
        HTTPException: 404, the job has no such result.
    """
    path = settings.job(job.id) / (job.claim or "none") / name
    if job.state != "done" or not path.is_file():
        raise HTTPException(404, "no such file: the job has no such result")
    return path
