"""The HTTP interface: jobs are handed in, followed, fetched and cancelled; and the page that does it with a mouse."""

import asyncio
import hmac
import secrets
import shutil
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote

from fastapi import Depends, FastAPI, File, Form, HTTPException, Request, Response, UploadFile
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware

from raylift._version import __version__
from raylift.errors import BadInput
from raylift.evaluation.report import NOT_MEDICAL
from raylift.server.crew import Busy, Reader, Unreadable, Workers
from raylift.server.jobs import ENDED, Full, Job, Jobs, State
from raylift.server.reading import Ask
from raylift.server.requests import MOST_XRAYS, Hang, Options, Xray, check_ending, file_name, shown
from raylift.server.settings import LOOPBACK, Settings
from raylift.server.worker import RESULTS

PAGE = Path(__file__).parent / "static"
COOKIE = "raylift_token"
LOOK = 0.3  # seconds between two looks at a job that is followed
LISTED = 100
UPLOADS = "uploads"  # of X-rays that are only looked at

JobId = Annotated[str, InPath(pattern="^[0-9a-f]{32}$", description="As the job's answer said.")]
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


class Problem(BaseModel):
    """What went wrong, in one sentence."""

    detail: str


class Understood(BaseModel):
    """An X-ray as it is understood."""

    name: str
    view: str | None = Field(description="By what was asked, the file, or its looks; null if that is in doubt.")
    sure: bool
    turnable: bool = Field(description="A picture, whose hanging can be corrected.")
    hang: Hang
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


class About(BaseModel):
    """The server."""

    version: str
    weights: str | None
    waiting: int
    most_waiting: int
    purpose: str


def create_app(settings: Settings) -> FastAPI:
    """The application; it starts its workers when it is served, and ends them with it."""
    jobs, reader = Jobs(settings.database, settings.waiting), Reader(settings.weights)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        shutil.rmtree(settings.folder / UPLOADS, ignore_errors=True)  # of requests that died with an earlier server
        workers = Workers(settings, jobs)
        workers.start()
        reader.start()
        yield
        await run_in_threadpool(workers.stop)
        reader.stop()

    app = FastAPI(
        title="Raylift",
        version=__version__,
        summary="A few X-rays into a CT-like volume.",
        description=NOT_MEDICAL,
        lifespan=life,
        max_body_size=settings.upload_bytes,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        dependencies=[Depends(_guard(settings))],
    )
    hosts = ["*"] if settings.host not in LOOPBACK else [*LOOPBACK, "[::1]", "testserver"]
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)  # a name that a stranger points here is refused

    @app.middleware("http")
    async def headers(request: Request, call_next: Any) -> Response:
        answer: Response = await call_next(request)
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["Referrer-Policy"] = "no-referrer"
        answer.headers["Content-Security-Policy"] = (
            "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
            "script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; connect-src 'self' data: blob:; "
            "frame-ancestors 'none'"
        )
        return answer

    def taken_in(files: Iterable[UploadFile], folder: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
        """Uploads in a folder, under names of ours."""
        paths, names = [], []
        for index, file in enumerate(files):
            check_ending(file.filename)
            path = folder / file_name(index, file.filename)
            with path.open("wb") as there:
                shutil.copyfileobj(file.file, there)
            paths.append(path)
            names.append(shown(file.filename))
        return tuple(paths), tuple(names)

    async def understood(
        files: list[UploadFile], options: Options, folder: Path, whole: bool
    ) -> tuple[dict[str, Any], tuple[str, ...], tuple[Path, ...]]:
        options.xrays = options.xrays or [Xray(view=None)] * len(files)
        if len(options.xrays) != len(files):
            raise HTTPException(422, f"{len(files)} files, but options for {len(options.xrays)} X-rays")
        try:
            paths, names = await run_in_threadpool(taken_in, files, folder)
            ask = Ask(settings.weights, paths, names, tuple(options.xrays))
            found = await reader.understand(ask, whole)
        except BadInput as problem:
            raise HTTPException(422, str(problem)) from None
        except Busy:
            raise HTTPException(503, "too many uploads at once; try again soon", {"Retry-After": "2"}) from None
        except Unreadable:
            raise HTTPException(422, "the X-rays cannot be read: reading them failed or took too long") from None
        if "error" in found:
            raise HTTPException(422, found["error"])
        return found, names, paths

    refusals: dict[int | str, dict[str, Any]] = {
        413: {"model": Problem, "description": "Too large."},
        422: {"model": Problem, "description": "The X-rays or the options cannot be used."},
        503: {"model": Problem, "description": "Too many uploads at once."},
    }
    missing: dict[int | str, dict[str, Any]] = {
        404: {"model": Problem, "description": "No such job or file."},
        422: {"model": Problem, "description": "No job can be called so."},
    }

    @app.post("/api/inspect", responses=refusals)
    async def inspect(xrays: Files, options: OptionsText = "{}") -> Inspection:
        """Understand X-rays without keeping them: view, hanging, and a picture of each."""
        settings.folder.mkdir(parents=True, exist_ok=True)
        with _temporary(settings.folder) as folder:
            found, _, _ = await understood(xrays, _parsed(options), folder, whole=False)
        return Inspection.model_validate(found)

    @app.post(
        "/api/jobs",
        status_code=201,
        responses={**refusals, 429: {"model": Problem, "description": "As many jobs wait as may."}},
    )
    async def submit(xrays: Files, response: Response, options: OptionsText = "{}") -> JobState:
        """Hand in X-rays to be reconstructed."""
        chosen = _parsed(options)
        if await run_in_threadpool(jobs.count, "queued") >= settings.waiting:
            raise _full()
        job_id = secrets.token_hex(16)
        folder = settings.job(job_id)
        folder.mkdir(parents=True)
        try:
            _, names, paths = await understood(xrays, chosen, folder, whole=True)
            kept = chosen.model_dump() | {"files": [path.name for path in paths], "names": names}
            job = await run_in_threadpool(jobs.add, job_id, kept)
        except Full:
            shutil.rmtree(folder, ignore_errors=True)
            raise _full() from None
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        response.headers["Location"] = f"/api/jobs/{job_id}"
        return _state(job)

    def _state(job: Job) -> JobState:
        place = jobs.place(job) if job.state == "queued" else None
        folder = settings.job(job.id) / (job.claim or "none")
        files = [name for name in RESULTS if (folder / name).is_file()] if job.state == "done" else []
        return JobState(
            **{name: getattr(job, name) for name in ("id", "state", "created", "started", "ended", "progress", "note")},
            title=job.options.get("title", ""),
            place=place,
            error=job.error,
            xrays=job.options.get("names", []),
            files=files,
        )

    def existing(job_id: JobId) -> Job:
        found = jobs.get(job_id)
        if found is None:
            raise HTTPException(404, "no such job")
        return found

    Existing = Annotated[Job, Depends(existing)]

    @app.get("/api/jobs")
    def listed() -> list[JobState]:
        """The newest jobs first."""
        return [_state(job) for job in jobs.newest(LISTED)]

    @app.get("/api/jobs/{job_id}", responses=missing)
    def job(one: Existing) -> JobState:
        """One job."""
        return _state(one)

    @app.get("/api/jobs/{job_id}/events", response_class=EventSourceResponse, responses=missing)
    async def follow(one: Existing) -> AsyncIterator[ServerSentEvent]:
        """The job whenever it changes, until it has ended: server-sent events named `job`."""
        last = None
        while (now := await run_in_threadpool(jobs.get, one.id)) is not None:
            state = await run_in_threadpool(_state, now)
            if state != last:
                yield ServerSentEvent(event="job", data=state)
                last = state
            if now.state in ENDED:
                return
            await asyncio.sleep(LOOK)

    @app.delete("/api/jobs/{job_id}", status_code=204, responses=missing)
    def cancel(one: Existing) -> None:
        """Cancel a job that has not ended; remove one that has, with its files."""
        if not jobs.cancel(one.id) and jobs.remove(one.id):
            shutil.rmtree(settings.job(one.id), ignore_errors=True)

    @app.get("/api/jobs/{job_id}/files/{name}", response_class=FileResponse, responses=missing)
    def fetch(one: Existing, name: Literal[tuple(RESULTS)], download: bool = False) -> FileResponse:  # type: ignore[valid-type]
        """A result, to be shown, or to be saved with `download`."""
        path = settings.job(one.id) / (one.claim or "none") / name
        if one.state != "done" or not path.is_file():
            raise HTTPException(404, "no such file: the job has not made it")
        return FileResponse(path, media_type=RESULTS[name], filename=f"raylift-{name}" if download else None)

    @app.get("/api/about")
    def about() -> About:
        """The server's version and weights, and how many jobs wait."""
        return About(
            version=__version__,
            weights=settings.weights,
            waiting=jobs.count("queued"),
            most_waiting=settings.waiting,
            purpose=NOT_MEDICAL,
        )

    @app.exception_handler(ValidationError)
    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, problem: Exception) -> JSONResponse:
        assert isinstance(problem, (ValidationError, RequestValidationError))
        first = problem.errors()[0]
        start = ("options",) if isinstance(problem, ValidationError) else ()
        place = ".".join(str(part) for part in (*start, *first["loc"]))
        return JSONResponse({"detail": f"{place}: {first['msg']}"[:400]}, 422)

    if PAGE.is_dir():
        app.mount("/", StaticFiles(directory=PAGE, html=True))
    return app


def _parsed(options: str) -> Options:
    return Options.model_validate_json(options)


def _full() -> HTTPException:
    return HTTPException(429, "as many jobs wait as may; try again later", {"Retry-After": "10"})


def _guard(settings: Settings) -> Any:
    """Lets in who brings the token, and no form of another page."""

    def check(request: Request) -> None:
        origin = request.headers.get("origin")
        if origin and origin.split("://", 1)[-1] != request.headers.get("host"):
            raise HTTPException(403, "a request of another page")
        if settings.token is not None:
            scheme, _, brought = request.headers.get("authorization", "").partition(" ")
            brought = brought if scheme.lower() == "bearer" else unquote(request.cookies.get(COOKIE, ""))
            if not hmac.compare_digest(brought.encode(), settings.token.encode()):
                raise HTTPException(401, "bring the server's token", {"WWW-Authenticate": "Bearer"})

    return check


class _temporary:
    """A folder for one request's uploads."""

    def __init__(self, parent: Path) -> None:
        self.folder = parent / UPLOADS / secrets.token_hex(16)

    def __enter__(self) -> Path:
        self.folder.mkdir(parents=True)
        return self.folder

    def __exit__(self, *problem: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
