"""The FastAPI application: its routes, middleware and error answers, and the web page."""

import logging
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from raylift.about import NOT_MEDICAL, __version__
from raylift.server.guard import Guard, Refusal, Tokens
from raylift.server.jobs import JobList
from raylift.server.reader_pool import ReaderPool
from raylift.server.routes import Services, router
from raylift.server.settings import ServerSettings
from raylift.server.supervisor import Supervisor
from raylift.server.timeouts import BodyTimeout
from raylift.storage.full_disk import FULL, is_full

PAGE = Path(__file__).parent / "static"
NOT_BUILT = (
    "The web page is not built: run make web in a clone of Raylift (it needs Node.js), and start the server again. "
    "Wheels contain the page; the HTTP interface works without it."
)
LOG = logging.getLogger("raylift.server")


def create_app(settings: ServerSettings) -> FastAPI:
    """Create the application, and its folder and job list where there are none.

    A job list that is damaged or cannot be opened raises BadInput, through `JobList.prepare`.

    Returns:
        The application; its lifespan starts and stops the workers.
    """
    settings.folder.mkdir(parents=True, exist_ok=True)
    settings.folder.chmod(0o700)
    jobs = JobList(settings.database, settings.waiting)
    new = jobs.prepare()
    supervisor = Supervisor(settings, jobs)
    services = Services(settings, jobs, supervisor, ReaderPool(), Tokens(settings.token))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(supervisor.start, new)
        yield
        await run_in_threadpool(supervisor.stop)

    app = FastAPI(
        title="Raylift",
        version=__version__,
        summary="A few X-rays into a CT-like volume.",
        description=NOT_MEDICAL,
        lifespan=lifespan,
        max_body_size=settings.upload_bytes,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    app.state.services = services
    app.include_router(router)
    app.add_middleware(BodyTimeout)
    app.add_middleware(Guard, settings=settings, tokens=services.tokens)  # added last, so it runs first
    app.add_exception_handler(ValidationError, _answer_validation_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(Refusal, _answer_refusal)
    app.add_exception_handler(sqlite3.Error, _answer_database_error)
    app.add_exception_handler(OSError, _answer_os_error)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    if page_is_built():
        app.mount("/", StaticFiles(directory=PAGE, html=True))
    else:
        app.add_api_route("/", _answer_without_page, include_in_schema=False)
    return app


def page_is_built() -> bool:
    """Return whether there is a web page to serve; a clone has none before `make web`."""
    return (PAGE / "index.html").is_file()


async def _answer_without_page() -> HTMLResponse:
    return HTMLResponse(f'<!DOCTYPE html><html lang="en"><title>Raylift</title><p>{NOT_BUILT}</p></html>', 404)


async def _answer_validation_error(request: Request, problem: Exception) -> JSONResponse:
    assert isinstance(problem, (ValidationError, RequestValidationError))
    first = problem.errors()[0]
    start = ("options",) if isinstance(problem, ValidationError) else ()
    location = ".".join(str(part) for part in (*start, *first["loc"]))
    return JSONResponse({"detail": f"{location}: {first['msg']}"[:400]}, 422)


async def _answer_refusal(request: Request, problem: Exception) -> JSONResponse:
    assert isinstance(problem, Refusal)
    return JSONResponse({"detail": problem.detail}, problem.status, problem.headers)


async def _answer_database_error(request: Request, problem: Exception) -> JSONResponse:
    LOG.warning("the job list cannot be used (%s)", problem)
    settings: ServerSettings = request.app.state.services.settings
    if is_full(settings.folder, problem):
        return _disk_full_response()
    detail = "the server's job list cannot be used at the moment; try again later"
    return JSONResponse({"detail": detail}, 503, {"Retry-After": "5"})


async def _answer_os_error(request: Request, problem: Exception) -> JSONResponse:
    assert isinstance(problem, OSError)
    if is_full(request.app.state.services.settings.folder, problem):
        return _disk_full_response()
    LOG.error("a request failed", exc_info=problem)
    return JSONResponse({"detail": f"the server failed ({type(problem).__name__})"}, 500)


async def _answer_http_exception(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    cause = problem.__cause__
    if isinstance(cause, OSError) and cause.errno in FULL:  # FastAPI calls the request malformed
        LOG.warning("%s: no room to receive an upload; set TMPDIR to a folder with room", tempfile.gettempdir())
        return _disk_full_response()
    return await http_exception_handler(request, problem)


def _disk_full_response() -> JSONResponse:
    return JSONResponse({"detail": "the server's disk is full; try again when there is room"}, 507)
