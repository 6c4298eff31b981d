"""What the supervisor and its workers survive: lists that fail, folders that vanish, DELETEs at any moment."""

import errno
import json
import random
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from uploads import TWO_VIEWS, submit, uploads

from raylift.geometry import Geometry, View
from raylift.images.xray_set import XraySet
from raylift.server import routes, supervisor, worker
from raylift.server.app import create_app
from raylift.server.jobs import Job, JobList
from raylift.server.settings import ServerSettings
from raylift.server.supervisor import Supervisor
from raylift.server.xrays_file import XRAYS_FILE, load_xrays, save_xrays


@pytest.fixture
def settings(tmp_path: Path, weights: Path) -> ServerSettings:
    return ServerSettings(tmp_path / "server", weights=str(weights), workers=0)


@pytest.fixture
def client(settings: ServerSettings) -> Iterator[TestClient]:
    """Of a server without workers."""
    with TestClient(create_app(settings), "http://localhost") as client:
        yield client


@pytest.fixture
def jobs(settings: ServerSettings) -> JobList:
    return JobList(settings.database, settings.waiting)


def folders(settings: ServerSettings) -> list[str]:
    """What there is in the server's folder of requests, attempts and jobs."""
    return [str(path.relative_to(settings.folder)) for kind in (settings.uploads, settings.work, settings.jobs)
            for path in kind.rglob("*")]  # fmt: skip


def waited_for(happened: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def written(job: Job, jobs: JobList, settings: ServerSettings, reconstructor: Any, folder: Path) -> None:
    """In place of a reconstruction: a result at once."""
    (folder / "volume.mha").write_text("made")


def test_the_x_rays_of_a_job_are_kept_as_they_were_understood(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((2, 64, 64)).astype(np.float32)
    views = (View(0.0, turn=(1.0, 2.0, 3.0)), View(90.0, mirrored=True))
    given = XraySet(images, views, Geometry.preset("x2ct", 64), (1.0, 2.0, 3.0), ("a.png: a note",))
    save_xrays(given, tmp_path / XRAYS_FILE)
    found = load_xrays(tmp_path / XRAYS_FILE)
    np.testing.assert_array_equal(found.images, images)
    assert (found.views, found.geometry, found.isocentre, found.notes) == (
        given.views, given.geometry, given.isocentre, given.notes)  # fmt: skip


def test_a_list_that_is_locked_for_a_while(
    client: TestClient, settings: ServerSettings, jobs: JobList, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raylift.server.jobs.LOCKED_SECONDS", 0.2)
    monkeypatch.setattr(worker, "RETRY_SECONDS", 0.1)
    monkeypatch.setattr(worker, "_reconstruct", written)
    job_id = submit(client, "a.png", "b.png").json()["id"]
    claimed = jobs.claim("w")
    assert claimed is not None
    with closing(sqlite3.connect(settings.database, isolation_level=None)) as backup:
        backup.execute("BEGIN EXCLUSIVE")
        refused = submit(client, "a.png", "b.png")
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert client.get(f"/api/jobs/{job_id}").json()["state"] == "running"  # reading goes on
        working = threading.Thread(target=worker.process_job, args=(claimed, jobs, settings, None))
        working.start()
        time.sleep(1.0)  # the worker has tried, and so has the supervisor
    working.join(20)
    assert client.get(f"/api/jobs/{job_id}").json()["state"] == "done"
    waited_for(lambda: client.get("/api/health").status_code == 200)
    assert submit(client, "a.png", "b.png").status_code == 201


def test_a_server_that_cannot_work_takes_no_jobs(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/api/health").json() == {"able": True, "workers": 0, "wanted": 0}
    monkeypatch.setattr(supervisor, "STALE_SECONDS", 0.3)
    monkeypatch.setattr(
        JobList, "check_writable", lambda jobs: (_ for _ in ()).throw(sqlite3.OperationalError("readonly"))
    )
    waited_for(lambda: client.get("/api/health").status_code == 503)
    assert client.get("/api/about").json()["health"]["able"] is False
    refused = submit(client, "a.png", "b.png")
    assert refused.status_code == 503
    assert "cannot work" in refused.json()["detail"]
    monkeypatch.undo()
    waited_for(lambda: client.get("/api/health").status_code == 200)  # it looks on


def test_a_watcher_that_died_is_noticed(client: TestClient) -> None:
    one: Supervisor = client.app.state.services.supervisor  # type: ignore[attr-defined]
    one.stopped.set()
    assert one.thread is not None
    one.thread.join()
    assert client.get("/api/health").status_code == 503
    assert submit(client, "a.png", "b.png").status_code == 503


def test_errors_of_any_kind_do_not_end_the_watch(settings: ServerSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[Exception] = [sqlite3.DatabaseError("malformed"), RuntimeError("of the program"), OSError(24, "files")]
    looks = []

    def look(one: Supervisor) -> None:
        looks.append(1)
        if errors:
            raise errors.pop()

    monkeypatch.setattr(Supervisor, "_check_jobs", look)
    monkeypatch.setattr(supervisor, "CHECK_SECONDS", 0.01)
    with TestClient(create_app(settings), "http://localhost"):
        waited_for(lambda: len(looks) > 5)


def test_workers_that_cannot_begin_are_not_started_without_end(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with TestClient(
        create_app(ServerSettings(tmp_path / "server", weights=str(gone), workers=1)), "http://localhost"
    ) as client:
        waited_for(lambda: client.get("/api/health").status_code == 503, 60)
        assert submit(client, "a.png", "b.png").status_code == 503


def test_what_is_left_over_is_swept_at_the_start(settings: ServerSettings, jobs: JobList) -> None:
    settings.folder.mkdir()
    jobs.prepare()
    for name, end in (("a" * 32, "done"), ("b" * 32, "failed"), ("c" * 32, None), ("d" * 32, "cancelled")):
        jobs.add(name, {})
        settings.job(name).mkdir(parents=True)
        (settings.job(name) / XRAYS_FILE).write_text("x-rays")
        if end == "cancelled":
            jobs.cancel(name)
        elif (claimed := jobs.claim("w")) and end in ("done", "failed"):
            jobs.end(claimed, end)  # type: ignore[arg-type]
            (settings.job(name) / "w-1").mkdir()
    for stray in (settings.jobs / ("e" * 32), settings.uploads / "f", settings.work / "w-2"):
        stray.mkdir(parents=True)
        (stray / "file").write_text("patient")
    with TestClient(create_app(settings), "http://localhost"):
        assert sorted(folders(settings)) == sorted(
            [f"jobs/{'a' * 32}", f"jobs/{'a' * 32}/w-1", f"jobs/{'c' * 32}", f"jobs/{'c' * 32}/{XRAYS_FILE}"]
        )
        assert jobs.waiting_ids() == ["c" * 32]


def test_results_of_a_list_that_is_gone_are_kept(settings: ServerSettings, jobs: JobList) -> None:
    settings.job("a" * 32).mkdir(parents=True)
    (settings.job("a" * 32) / "volume.mha").write_text("made")
    with TestClient(create_app(settings), "http://localhost"):
        assert folders(settings) == []
    (aside,) = settings.folder.glob("jobs-of-an-earlier-list-*")
    assert (aside / ("a" * 32) / "volume.mha").read_text() == "made"


def test_a_job_whose_folder_is_gone_fails_and_the_worker_lives(
    client: TestClient, settings: ServerSettings, jobs: JobList
) -> None:

    job_id = submit(client, "a.png", "b.png").json()["id"]
    shutil.rmtree(settings.job(job_id))
    claimed = jobs.claim("w")
    assert claimed is not None
    worker.process_job(claimed, jobs, settings, None)  # type: ignore[arg-type]
    told = client.get(f"/api/jobs/{job_id}").json()
    assert told["state"] == "failed"
    assert told["error"] == "its files on the server are gone or damaged; submit it again"
    assert folders(settings) == []


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the server's disk is full"),
        (RuntimeError("/some/where"), "the reconstruction failed (RuntimeError)"),
    ],
)
def test_what_ends_a_job_is_said_without_paths(
    client: TestClient,
    settings: ServerSettings,
    jobs: JobList,
    monkeypatch: pytest.MonkeyPatch,
    problem: Exception,
    words: str,
) -> None:
    def fail(*arguments: object) -> None:
        raise problem

    monkeypatch.setattr(worker, "_reconstruct", fail)
    job_id = submit(client, "a.png", "b.png").json()["id"]
    claimed = jobs.claim("w")
    assert claimed is not None
    worker.process_job(claimed, jobs, settings, None)  # type: ignore[arg-type]
    error = client.get(f"/api/jobs/{job_id}").json()["error"]
    assert words in error
    assert "/" not in error
    assert folders(settings) == []


def test_a_full_disk_is_called_so(
    client: TestClient, settings: ServerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(routes, "_store_uploads", full)
    for path in ("/api/jobs", "/api/inspect"):
        answer = client.post(path, files=uploads("a.png", "b.png"), data={"options": json.dumps(TWO_VIEWS)})
        assert answer.status_code == 507
        assert answer.json()["detail"] == "the server's disk is full; try again when there is room"
    assert folders(settings) == []


def test_no_room_to_receive_an_upload_is_called_so(
    client: TestClient, settings: ServerSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A large one is received through a temporary file."""

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", full)
    large = uploads("a.png", content=bytes(2**21))
    for path in ("/api/jobs", "/api/inspect"):
        answer = client.post(path, files=large, data={"options": json.dumps(TWO_VIEWS)})
        assert answer.status_code == 507
        assert answer.json()["detail"] == "the server's disk is full; try again when there is room"
        assert f"{tempfile.gettempdir()}: no room to receive an upload; set TMPDIR" in caplog.text
    assert folders(settings) == []
    assert client.get("/api/jobs/none").status_code == 422
    assert client.get("/api/nothing").status_code == 404  # as ever


def test_the_clock_may_be_set(client: TestClient, jobs: JobList, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = submit(client, "a.png", "b.png").json()["id"]
    jobs.claim("w")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 1e6)
    time.sleep(3 * supervisor.CHECK_SECONDS)
    assert client.get(f"/api/jobs/{job_id}").json()["state"] == "running"


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_left_of_jobs_deleted_at_any_moment(
    client: TestClient, settings: ServerSettings, jobs: JobList, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)

    def slowly(job: Job, jobs: JobList, settings: ServerSettings, reconstructor: Any, folder: Path) -> None:
        for name in ("volume.mha", "volume.nrrd", "report.json"):
            if not jobs.report(job, name, 0.5):
                raise worker.ClaimLost
            (folder / name).write_text("made")
            time.sleep(chance.uniform(0, 0.01))

    monkeypatch.setattr(worker, "_reconstruct", slowly)
    content = submit(client, "a.png", "b.png").json()["id"]
    xrays = (settings.job(content) / XRAYS_FILE).read_bytes()
    client.delete(f"/api/jobs/{content}")
    ended = threading.Event()

    def labour(name: str) -> None:
        while not ended.is_set():
            job = worker.retry(lambda: jobs.claim(name))
            if job is not None:
                worker.process_job(job, jobs, settings, None)  # type: ignore[arg-type]

    def remove(job_id: str) -> None:
        for _ in range(4):
            time.sleep(random.Random(job_id).uniform(0, 0.03))
            assert client.delete(f"/api/jobs/{job_id}").status_code in (204, 404)

    workers = [threading.Thread(target=labour, args=(f"w{k}",)) for k in range(3)]
    for thread in workers:
        thread.start()
    removers = []
    for number in range(30):
        job_id = f"{number:032x}"
        settings.job(job_id).mkdir(parents=True)
        (settings.job(job_id) / XRAYS_FILE).write_bytes(xrays)
        jobs.add(job_id, {"names": []})
        removers += [threading.Thread(target=remove, args=(job_id,)) for _ in range(2)]
        for thread in removers[-2:]:
            thread.start()
    for thread in removers:
        thread.join()
    waited_for(lambda: jobs.count("queued", "running") == 0)
    ended.set()
    for thread in workers:
        thread.join()
    for job in jobs.newest(100):
        client.delete(f"/api/jobs/{job.id}")
    assert jobs.ids() == set()
    assert folders(settings) == []
