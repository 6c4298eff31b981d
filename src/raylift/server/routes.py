"""The addresses of the HTTP interface."""

import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, File, Form, HTTPException, Request, Response, UploadFile
from fastapi import Path as InPath
from fastapi.responses import FileResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from raylift.about import NOT_MEDICAL, __version__
from raylift.errors import BadInput
from raylift.server.board import Board
from raylift.server.guard import COOKIE, Tokens, address_of
from raylift.server.intake import ReadRequest
from raylift.server.jobs import Full, Job, Jobs
from raylift.server.kept import NAME
from raylift.server.models import About, Health, Inspection, JobState, Login, Problem, state_of
from raylift.server.readers import Busy, Readers, Unreadable
from raylift.server.requests import MOST_XRAYS, Options, Xray, check_ending, file_name, shown
from raylift.server.settings import Settings
from raylift.server.supervisor import Supervisor
from raylift.server.worker import RESULTS

LISTED = 100

router = APIRouter()


@dataclass
class Parts:
    """What a server is made of."""

    settings: Settings
    jobs: Jobs
    supervisor: Supervisor
    readers: Readers
    tokens: Tokens
    board: Board = field(init=False)

    def __post_init__(self) -> None:
        self.board = Board(lambda ids: {state.id: state for state in self.states(list(self.jobs.those(ids).values()))})

    def states(self, jobs: list[Job]) -> list[JobState]:
        """Return what is said of jobs."""
        waiting = self.jobs.waiting_ids() if any(job.state == "queued" for job in jobs) else []
        return [state_of(job, self.settings, waiting) for job in jobs]

    def health(self) -> Health:
        """Return whether the server can work."""
        return Health(able=self.supervisor.able(), workers=self.supervisor.alive(), wanted=self.settings.workers)


def parts_of(request: Request) -> Parts:
    """Return what the server that was asked is made of."""
    found: Parts = request.app.state.parts
    return found


JobId = Annotated[str, InPath(pattern="^[0-9a-f]{32}$", description="As the job's answer said.")]
Server = Annotated[Parts, Depends(parts_of)]
Files = Annotated[
    list[UploadFile],
    File(
        min_length=1,
        max_length=MOST_XRAYS,
        description="DICOM, PNG, JPEG, TIFF; or line integrals: .npy, .nii.gz, .mha.",
    ),
]
OptionsText = Annotated[
    str, Form(max_length=20000, description="JSON of an Options object: views, refinement and so on.")
]
REFUSALS: dict[int | str, dict[str, Any]] = {
    413: {"model": Problem, "description": "Too large."},
    422: {"model": Problem, "description": "The X-rays or the options cannot be used."},
    503: {"model": Problem, "description": "Too many uploads at once, or the server cannot work."},
    507: {"model": Problem, "description": "The server's disk is full."},
}
MISSING: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "No such job or file."},
    422: {"model": Problem, "description": "No job can be called so."},
}


def existing(job_id: JobId, server: Server) -> Job:
    """Return the job that is asked for, or answer 404."""
    found = server.jobs.get(job_id)
    if found is None:
        raise HTTPException(404, "no such job")
    return found


def followable(one: Annotated[Job, Depends(existing)], server: Server) -> Job:
    """Return the job that is to be followed, or answer 503 where no more followers can be had."""
    if server.board.full:
        raise HTTPException(503, "too many follow jobs at once; try again later", {"Retry-After": "10"})
    return one


Existing = Annotated[Job, Depends(existing)]


@router.post("/api/login", status_code=204, responses={401: {"model": Problem, "description": "A wrong token."}})
def login(request: Request, response: Response, given: Login, server: Server) -> None:
    """Exchange the token for a cookie, which a browser brings from then on."""
    server.tokens.check(address_of(request.scope), given.token)
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, server.tokens.cookie, httponly=True, samesite="strict", secure=secure)


@router.get("/api/health", responses={503: {"model": Health, "description": "It cannot."}})
def health(response: Response, server: Server) -> Health:
    """Whether the server can work; needs no token."""
    found = server.health()
    response.status_code = 200 if found.able else 503
    return found


@router.get("/api/about")
def about(server: Server) -> About:
    """The server's version, weights and health, and how many jobs wait."""
    return About(
        version=__version__,
        weights=server.settings.weights and Path(server.settings.weights).name,
        waiting=server.jobs.count("queued"),
        most_waiting=server.settings.waiting,
        health=server.health(),
        purpose=NOT_MEDICAL,
    )


@router.post("/api/inspect", responses=REFUSALS)
async def inspect(xrays: Files, server: Server, options: OptionsText = "{}") -> Inspection:
    """Understand X-rays without keeping them: view, orientation, and a picture of each."""
    chosen = Options.model_validate_json(options)
    with _upload(server.settings) as folder:
        found, _ = await _understood(server, xrays, chosen, folder, whole=False)
    return Inspection.model_validate(found)


@router.post(
    "/api/jobs", status_code=201, responses={**REFUSALS, 429: {"model": Problem, "description": "Too many jobs wait."}}
)
async def submit(xrays: Files, response: Response, server: Server, options: OptionsText = "{}") -> JobState:
    """Hand in X-rays to be reconstructed."""
    chosen = Options.model_validate_json(options)
    if not server.supervisor.able():
        raise HTTPException(503, "the server cannot work at the moment; try again later", {"Retry-After": "10"})
    if await run_in_threadpool(server.jobs.count, "queued") >= server.settings.waiting:
        raise _full()
    job_id = secrets.token_hex(16)
    with _upload(server.settings) as upload:
        _, names = await _understood(server, xrays, chosen, upload, whole=True)
        try:
            job = await run_in_threadpool(_add, server, job_id, upload, chosen.model_dump() | {"names": names})
        except Full:
            raise _full() from None
    response.headers["Location"] = f"/api/jobs/{job_id}"
    return (await run_in_threadpool(server.states, [job]))[0]


@router.get("/api/jobs")
def listed(server: Server) -> list[JobState]:
    """The newest jobs first."""
    return server.states(server.jobs.newest(LISTED))


@router.get("/api/jobs/{job_id}", responses=MISSING)
def job(one: Existing, server: Server) -> JobState:
    """One job."""
    return server.states([one])[0]


@router.get(
    "/api/jobs/{job_id}/events",
    response_class=EventSourceResponse,
    responses={**MISSING, 503: {"model": Problem, "description": "Too many follow jobs at once."}},
)
async def follow(one: Annotated[Job, Depends(followable)], server: Server) -> AsyncIterator[ServerSentEvent]:
    """The job whenever it changes, until it has ended: server-sent events named `job`."""
    async for state in server.board.follow(one.id):
        yield ServerSentEvent(event="job", data=state)


@router.delete("/api/jobs/{job_id}", status_code=204, responses=MISSING)
def cancel(one: Existing, server: Server) -> None:
    """Cancel a job that has not ended; remove one that has, with its files."""
    before = server.jobs.cancel(one.id)
    # The files of a job at work are its worker's to remove.
    if before == "queued" or (before is None and server.jobs.remove(one.id)):
        shutil.rmtree(server.settings.job(one.id), ignore_errors=True)


@router.get("/api/jobs/{job_id}/files/{name}", response_class=FileResponse, responses=MISSING)
def fetch(one: Existing, server: Server, name: Literal[tuple(RESULTS)], download: bool = False) -> FileResponse:  # type: ignore[valid-type]
    """A result, to be shown, or to be saved with `download`."""
    path = server.settings.job(one.id) / (one.claim or "none") / name
    if one.state != "done" or not path.is_file():
        raise HTTPException(404, "no such file: the job has not made it")
    return FileResponse(path, media_type=RESULTS[name], filename=f"raylift-{name}" if download else None)


@contextmanager
def _upload(settings: Settings) -> Iterator[Path]:
    """Make a folder for one request's uploads, for as long as the block lasts."""
    folder = settings.uploads / secrets.token_hex(16)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _understood(
    server: Parts, files: list[UploadFile], options: Options, folder: Path, whole: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Have uploads read; returns how they are understood, and their given names. Answers 422 or 503."""
    asked = options.xrays or [Xray(view=None)] * len(files)
    if len(asked) != len(files):
        raise HTTPException(422, f"{len(files)} files, but options for {len(asked)} X-rays")
    names = tuple(shown(file.filename) for file in files)
    try:
        kept = await run_in_threadpool(_taken_in, files, folder)
        found = await server.readers.understand(
            ReadRequest(server.settings.weights, folder, kept, names, tuple(asked), whole)
        )
    except BadInput as problem:
        raise HTTPException(422, str(problem)) from None
    except Busy:
        raise HTTPException(503, "too many uploads at once; try again soon", {"Retry-After": "2"}) from None
    except Unreadable:
        raise HTTPException(422, "the X-rays cannot be read: reading them failed or took too long") from None
    if "error" in found:
        raise HTTPException(422, found["error"])
    return found, names


def _taken_in(files: list[UploadFile], folder: Path) -> tuple[str, ...]:
    """Write uploads into a folder; returns their names there. Raises BadInput for another format."""
    for file in files:
        check_ending(file.filename)
    names = tuple(file_name(index, file.filename) for index, file in enumerate(files))
    for name, file in zip(names, files, strict=True):
        with (folder / name).open("wb") as there:
            shutil.copyfileobj(file.file, there)
    return names


def _add(server: Parts, job_id: str, upload: Path, options: dict[str, Any]) -> Job:
    """Put a job whose X-rays were read on the list. Raises Full."""
    folder = server.settings.job(job_id)
    folder.mkdir(parents=True)
    try:
        (upload / NAME).rename(folder / NAME)
        return server.jobs.add(job_id, options)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _full() -> HTTPException:
    return HTTPException(429, "too many jobs wait; try again later", {"Retry-After": "10"})
