"""The list of jobs: nothing is lost, nothing ends twice, whatever dies."""

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from raylift.errors import BadInput
from raylift.server.jobs import LOCKED_SECONDS, MAX_ATTEMPTS, JobList, QueueFull


@pytest.fixture
def jobs(tmp_path: Path) -> JobList:
    jobs = JobList(tmp_path / "jobs.sqlite", max_waiting=3)
    assert jobs.prepare()
    return jobs


def ids(jobs: JobList) -> list[str]:
    return [job.id for job in jobs.newest(10)]


def test_first_come_first_served(jobs: JobList) -> None:
    for name in "abc":
        jobs.add(name, {"title": name})
    assert jobs.waiting_ids() == ["a", "b", "c"]
    claimed = [jobs.claim("w") for _ in range(4)]
    assert [job and job.id for job in claimed] == ["a", "b", "c", None]
    assert claimed[0] is not None
    assert (claimed[0].state, claimed[0].options, claimed[0].attempts) == ("running", {"title": "a"}, 1)


def test_no_more_wait_than_may(jobs: JobList) -> None:
    for name in "abc":
        jobs.add(name, {})
    with pytest.raises(QueueFull):
        jobs.add("d", {})
    assert ids(jobs) == ["c", "b", "a"]
    jobs.claim("w")
    jobs.add("d", {})


def test_a_job_given_back_ends_once(jobs: JobList) -> None:
    jobs.add("a", {})
    first = jobs.claim("w")
    assert first is not None
    jobs.requeue_all()
    second = jobs.claim("v")
    assert second is not None
    assert second.id == first.id
    assert not jobs.report(first, "late", 0.5)
    assert not jobs.end(first, "done")
    assert jobs.report(second, "in time", 0.5)
    assert jobs.end(second, "done")
    assert not jobs.end(second, "failed", "twice")
    found = jobs.get("a")
    assert found is not None
    assert (found.state, found.claim, found.error) == ("done", second.claim, None)


def test_only_the_dead_workers_jobs_are_given_back(jobs: JobList) -> None:
    jobs.add("a", {})
    jobs.add("b", {})
    jobs.claim("w")
    jobs.claim("v")
    jobs.requeue("w")
    assert [job.state for job in jobs.newest(2)] == ["running", "queued"]


def test_what_kills_its_workers_fails_in_the_end(jobs: JobList) -> None:
    jobs.add("a", {})
    for _ in range(MAX_ATTEMPTS):
        assert jobs.claim("w") is not None
        jobs.requeue("w")
    found = jobs.get("a")
    assert found is not None
    assert found.state == "failed"
    assert found.error == "the worker died 3 times"
    assert jobs.claim("w") is None


def test_a_server_that_ends_is_no_fault_of_its_jobs(jobs: JobList) -> None:
    jobs.add("a", {})
    for _ in range(3 * MAX_ATTEMPTS):
        assert jobs.claim("w") is not None
        jobs.requeue_all()
    assert jobs.waiting_ids() == ["a"]
    claimed = jobs.claim("w")
    assert claimed is not None
    assert claimed.attempts == 1


def test_reading_waits_for_nobody(jobs: JobList) -> None:
    jobs.add("a", {})
    with closing(sqlite3.connect(jobs.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        assert ids(jobs) == ["a"]
        assert jobs.count("queued") == 1
        assert jobs.get("a") is not None
        assert time.monotonic() - began < LOCKED_SECONDS / 2  # it would wait so long for the other
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            jobs.add("b", {})


def test_a_list_that_is_gone_is_not_begun_anew(jobs: JobList) -> None:
    jobs.add("a", {})
    jobs.path.unlink()
    with pytest.raises(sqlite3.OperationalError):
        jobs.add("b", {})
    assert not jobs.path.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no database, but long enough to be taken for one" * 30, "not a job list, or a damaged one"),
        ("cut", "not a job list, or a damaged one"),
        ("other", "cannot be opened .no such column"),
        ("locked", "cannot be opened .database is locked.; end the program that uses it"),
    ],
)
def test_a_list_that_cannot_be_used_is_named_at_the_start(tmp_path: Path, content: str | bytes, words: str) -> None:
    path = tmp_path / "jobs.sqlite"
    with ExitStack() as stack:
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content == "cut":
            JobList(path, 3).prepare()
            with closing(sqlite3.connect(path)) as database:
                database.execute("PRAGMA journal_mode = DELETE")
            path.write_bytes(path.read_bytes()[:5000])
        else:
            other = stack.enter_context(closing(sqlite3.connect(path, isolation_level=None)))
            other.execute("CREATE TABLE jobs (number INTEGER, state TEXT)")
            if content == "locked":
                other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BadInput, match=words) as raised:
            JobList(path, 3).prepare()
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("begun", [False, True])
def test_cancel_and_remove(jobs: JobList, begun: bool) -> None:
    jobs.add("a", {})
    claimed = jobs.claim("w") if begun else None
    assert not jobs.remove("a")
    assert jobs.cancel("a") == ("running" if begun else "queued")
    assert jobs.cancel("a") is None
    if claimed is not None:
        assert not jobs.end(claimed, "done")
    jobs.requeue_all()
    assert jobs.claim("w") is None
    assert jobs.remove("a")
    assert jobs.get("a") is None
    assert not jobs.cancel("a")


def test_it_outlives_the_process(jobs: JobList) -> None:
    jobs.add("a", {"title": "kept"})
    again = JobList(jobs.path, 3)
    found = again.get("a")
    assert found is not None
    assert found.options == {"title": "kept"}


def test_many_at_once_take_each_job_once(tmp_path: Path) -> None:
    jobs = JobList(tmp_path / "jobs.sqlite", max_waiting=40)
    jobs.prepare()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: jobs.add(str(number), {}), range(40)))
        claimed = list(pool.map(lambda number: jobs.claim(f"w{number % 8}"), range(48)))
    taken = [job.id for job in claimed if job is not None]
    assert sorted(taken, key=int) == [str(number) for number in range(40)]
