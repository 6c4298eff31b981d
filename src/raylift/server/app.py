"""The application: jobs are handed in, followed, fetched and cancelled over HTTP; and a page that does it by mouse."""

import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from raylift.about import NOT_MEDICAL, __version__
from raylift.server.guard import Guard, Refusal, Tokens
from raylift.server.jobs import Jobs
from raylift.server.pace import Pace
from raylift.server.readers import Readers
from raylift.server.routes import Parts, router
from raylift.server.settings import Settings
from raylift.server.supervisor import Supervisor
from raylift.storage.atomic import is_full

PAGE = Path(__file__).parent / "static"
LOG = logging.getLogger("raylift.server")


def create_app(settings: Settings) -> FastAPI:
    """Make the application; it starts its workers when it is served, and ends them with it.

    Raises:
        BadInput: the list of jobs in the settings' folder is damaged, or cannot be opened.
    """
    settings.folder.mkdir(parents=True, exist_ok=True)
    settings.folder.chmod(0o700)
    jobs = Jobs(settings.database, settings.waiting)
    new = jobs.prepare()
    supervisor = Supervisor(settings, jobs)
    parts = Parts(settings, jobs, supervisor, Readers(), Tokens(settings.token))

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(supervisor.start, new)
        yield
        await run_in_threadpool(supervisor.stop)

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
    )
    app.state.parts = parts
    app.include_router(router)
    app.add_middleware(Pace)
    app.add_middleware(Guard, settings=settings, tokens=parts.tokens)  # the last one is asked first
    app.add_exception_handler(ValidationError, _invalid)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(sqlite3.Error, _unlisted)
    app.add_exception_handler(OSError, _unwritten)
    if PAGE.is_dir():
        app.mount("/", StaticFiles(directory=PAGE, html=True))
    return app


async def _invalid(request: Request, problem: Exception) -> JSONResponse:
    assert isinstance(problem, (ValidationError, RequestValidationError))
    first = problem.errors()[0]
    start = ("options",) if isinstance(problem, ValidationError) else ()
    place = ".".join(str(part) for part in (*start, *first["loc"]))
    return JSONResponse({"detail": f"{place}: {first['msg']}"[:400]}, 422)


async def _refused(request: Request, problem: Exception) -> JSONResponse:
    assert isinstance(problem, Refusal)
    return JSONResponse({"detail": problem.detail}, problem.status, problem.headers)


async def _unlisted(request: Request, problem: Exception) -> JSONResponse:
    LOG.warning("the list of jobs cannot be used (%s)", problem)
    settings: Settings = request.app.state.parts.settings
    if is_full(settings.folder, problem):
        return _no_room()
    detail = "the server's list of jobs cannot be used at the moment; try again later"
    return JSONResponse({"detail": detail}, 503, {"Retry-After": "5"})


async def _unwritten(request: Request, problem: Exception) -> JSONResponse:
    assert isinstance(problem, OSError)
    if is_full(request.app.state.parts.settings.folder, problem):
        return _no_room()
    LOG.error("a request failed", exc_info=problem)
    return JSONResponse({"detail": f"the server failed ({type(problem).__name__})"}, 500)


def _no_room() -> JSONResponse:
    return JSONResponse({"detail": "the server's disk is full; try again when there is room"}, 507)
