"""Followers hear of a job whenever it changes, by one look at the list for all of them."""

import asyncio
import sqlite3
from collections.abc import Sequence

import pytest

from raylift.server import broadcast
from raylift.server.broadcast import JobBroadcaster
from raylift.server.models import JobState


def state(progress: float, ended: float | None = None) -> JobState:
    return JobState(
        id="a",
        state="running" if ended is None else "done",
        title="",
        created=0,
        started=0,
        ended=ended,
        place=None,
        progress=progress,
        note="",
        error=None,
        xrays=[],
        files=[],
    )


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "POLL_SECONDS", 0.01)


async def told(to: JobBroadcaster, job_id: str = "a") -> list[float]:
    return [one.progress async for one in to.follow(job_id)]


def test_two_hundred_followers_and_one_look() -> None:
    answers = [state(0.1), state(0.1), state(0.5), state(1.0, ended=9.0)]
    looks = 0

    def look(ids: Sequence[str]) -> dict[str, JobState]:
        nonlocal looks
        looks += 1
        return {"a": answers.pop(0)}

    async def follow() -> list[list[float]]:
        one = JobBroadcaster(look)
        found = await asyncio.gather(*(told(one) for _ in range(200)))
        assert not one.followers
        return list(found)

    found = asyncio.run(follow())
    assert all(heard == [0.1, 0.5, 1.0] for heard in found)
    assert looks == 4


def test_a_job_that_is_gone_ends_its_following() -> None:
    answers: list[dict[str, JobState]] = [{"a": state(0.1)}, {}]
    assert asyncio.run(told(JobBroadcaster(lambda ids: answers.pop(0)))) == [0.1]


def test_a_list_that_fails_is_looked_at_again() -> None:
    answers: list[dict[str, JobState] | None] = [None, {"a": state(0.2)}, None, {"a": state(1.0, ended=9.0)}]

    def look(ids: Sequence[str]) -> dict[str, JobState]:
        answer = answers.pop(0)
        if answer is None:
            raise sqlite3.OperationalError("database is locked")
        return answer

    assert asyncio.run(told(JobBroadcaster(look))) == [0.2, 1.0]


def test_who_comes_later_hears_at_once_where_the_job_stands() -> None:
    looked = asyncio.Event()

    def look(ids: Sequence[str]) -> dict[str, JobState]:
        return {"a": state(0.4)}

    async def follow() -> float:
        one = JobBroadcaster(look)
        first = one.follow("a")
        await anext(first)
        later = one.follow("a")
        looked.set()
        heard = (await anext(later)).progress
        await first.aclose()
        await later.aclose()
        return heard

    assert asyncio.run(follow()) == 0.4
