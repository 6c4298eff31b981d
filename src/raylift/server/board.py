"""Followers of jobs, any number of them, told by one look at the list."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence

from starlette.concurrency import run_in_threadpool

from raylift.server.models import JobState

LOOK = 0.3  # seconds between two looks at the jobs that are followed
MOST_FOLLOWERS = 400
LOG = logging.getLogger("raylift.server")


class Board:
    """Tells followers of a job whenever it changes.

    Args:
        states: of those of some jobs that there are, by id; it may raise sqlite3.Error.
    """

    def __init__(self, states: Callable[[Sequence[str]], dict[str, JobState]]) -> None:
        self.states = states
        self.followers: dict[str, set[asyncio.Queue[JobState | None]]] = {}
        self.last: dict[str, JobState] = {}
        self.looking: asyncio.Task[None] | None = None

    @property
    def full(self) -> bool:
        """Tell whether no more followers can be had."""
        return sum(map(len, self.followers.values())) >= MOST_FOLLOWERS

    async def follow(self, job_id: str) -> AsyncIterator[JobState]:
        """Yield a job's state now, and whenever it changes, until it has ended or is gone."""
        told: asyncio.Queue[JobState | None] = asyncio.Queue()
        self.followers.setdefault(job_id, set()).add(told)
        if job_id in self.last:
            told.put_nowait(self.last[job_id])
        if self.looking is None or self.looking.done():
            self.looking = asyncio.create_task(self._look())
        try:
            while (state := await told.get()) is not None:
                yield state
                if state.ended is not None:
                    return
        finally:
            self.followers[job_id].discard(told)
            if not self.followers[job_id]:
                del self.followers[job_id]
                self.last.pop(job_id, None)

    async def _look(self) -> None:
        """Look at the jobs while any is followed."""
        while self.followers:
            followed = list(self.followers)
            try:
                found = await run_in_threadpool(self.states, followed)
            except sqlite3.Error as error:
                LOG.warning("the list of jobs cannot be used (%s); trying again", error)
                await asyncio.sleep(LOOK)
                continue
            for job_id in followed:
                state = found.get(job_id)
                if state is None or state != self.last.get(job_id):
                    for told in self.followers.get(job_id, ()):
                        told.put_nowait(state)
                if state is not None and job_id in self.followers:
                    self.last[job_id] = state
            await asyncio.sleep(LOOK)
