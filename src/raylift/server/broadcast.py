"""Job states sent to any number of followers, with one query of the job list for all of them."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence

from starlette.concurrency import run_in_threadpool

from raylift.server.models import JobState

POLL_SECONDS = 0.3  # between two queries of the followed jobs
MAX_FOLLOWERS = 400
LOG = logging.getLogger("raylift.server")


class JobBroadcaster:
    """Sends a job's state to its followers whenever it changes.

    Args:
        fetch_states: returns the states of the given jobs by id, without those that do not exist; it may raise
            sqlite3.Error.
    """

    def __init__(self, fetch_states: Callable[[Sequence[str]], dict[str, JobState]]) -> None:
        self.fetch_states = fetch_states
        self.followers: dict[str, set[asyncio.Queue[JobState | None]]] = {}
        self.last_states: dict[str, JobState] = {}
        self.polling: asyncio.Task[None] | None = None

    @property
    def full(self) -> bool:
        """Whether the number of followers has reached its limit."""
        return sum(map(len, self.followers.values())) >= MAX_FOLLOWERS

    async def follow(self, job_id: str) -> AsyncIterator[JobState]:
        """Yield a job's state now and whenever it changes, until the job has ended or was removed."""
        updates: asyncio.Queue[JobState | None] = asyncio.Queue()
        self.followers.setdefault(job_id, set()).add(updates)
        if job_id in self.last_states:
            updates.put_nowait(self.last_states[job_id])
        if self.polling is None or self.polling.done():
            self.polling = asyncio.create_task(self._poll())
        try:
            while (state := await updates.get()) is not None:
                yield state
                if state.ended is not None:
                    return
        finally:
            self.followers[job_id].discard(updates)
            if not self.followers[job_id]:
                del self.followers[job_id]
                self.last_states.pop(job_id, None)

    async def _poll(self) -> None:
        """Query the followed jobs again and again, as long as there are followers."""
        while self.followers:
            followed = list(self.followers)
            try:
                states = await run_in_threadpool(self.fetch_states, followed)
            except sqlite3.Error as error:
                LOG.warning("the job list cannot be read (%s); trying again", error)
                await asyncio.sleep(POLL_SECONDS)
                continue
            for job_id in followed:
                state = states.get(job_id)
                if state is None or state != self.last_states.get(job_id):
                    for updates in self.followers.get(job_id, ()):
                        updates.put_nowait(state)
                if state is not None and job_id in self.followers:
                    self.last_states[job_id] = state
            await asyncio.sleep(POLL_SECONDS)
