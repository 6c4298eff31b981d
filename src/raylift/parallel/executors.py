"""Where the cases of bulk work are computed: in processes of this machine, or on a Ray cluster.

The same function works on every case, and leaves its result where it can be found again. A worker that dies, with its
machine or by itself or for want of an end, costs the case it was at: that is tried again. One that is lost `ATTEMPTS`
times is given up, and named, while the others go on.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from raylift.errors import WrongUsage

Case = TypeVar("Case")
Result = TypeVar("Result")

EXECUTORS = ("local", "ray")
ATTEMPTS = 3
QUEUED = 64  # cases that a cluster has at hand, at least; what waits tells an autoscaler of the need


@dataclass(frozen=True)
class Executor:
    """Where to compute.

    Args:
        name: "local" or "ray", or "here".
        processes: of the local engine; the number of cores by default.
        address: of the Ray cluster, as `ray.init` takes it; by default that of the environment, or one of this machine
            alone, which ends with the work.
        seconds: that a case may take; its worker is killed then. Not in this process.
    """

    name: str = "local"
    processes: int | None = None
    address: str | None = None
    seconds: float = 3600.0


LOCAL = Executor()
HERE = Executor("here")  # one case after another in this process, with all its threads or GPU


@dataclass(frozen=True)
class GivenUp:
    """A case that was given up."""

    reason: str


class WorkerLost(Exception):
    """The worker at a case is gone."""


class Workers(Protocol):
    """What an engine is here: cases go in, and come out as they are done."""

    limit: int

    def submit(self, case: Any) -> Any:
        """Begin with a case; what is returned stands for it."""

    def finished(self, running: list[Any]) -> list[Any]:
        """Wait until some of those that were begun have ended."""

    def result(self, one: Any) -> Any:
        """What came of it. Raises Died, or what the work raised."""

    def stop(self) -> None:
        """End, and drop what is running."""


def run_cases(
    work: Callable[[Case], Result],
    cases: Mapping[str, Case],
    executor: Executor,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> Iterator[tuple[str, Result | GivenUp]]:
    """Work on every case.

    Args:
        work: importable from the workers, or of such parts (`functools.partial`).
        cases: what it takes, by name.
        engine: where.
        progress: called with a case's name, the number done and the total after each.

    Yields:
        Name and result, in the order in which they end.

    Raises:
        WrongUsage: Ray is not installed, or does not answer.
        Exception: what the work raised for a case ends everything.
    """
    if not cases:
        return
    workers = _begin(executor, work, len(cases))
    waiting, done = deque((name, 1) for name in cases), 0
    running: dict[Any, tuple[str, int]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers.limit:
                name, attempt = waiting.popleft()
                running[workers.submit(cases[name])] = name, attempt
            for one in workers.finished(list(running)):
                name, attempt = running.pop(one)
                found: Result | GivenUp
                try:
                    found = workers.result(one)
                except WorkerLost as death:
                    if attempt < ATTEMPTS:
                        waiting.append((name, attempt + 1))
                        continue
                    found = GivenUp(f"its worker died {ATTEMPTS} times ({death})")
                done += 1
                progress(name, done, len(cases))
                yield name, found
    finally:
        workers.stop()


def one_thread() -> None:
    """Let this process compute with one thread: there is one for each core."""
    import SimpleITK as sitk
    import torch

    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def _begin(executor: Executor, work: Callable[[Any], Any], cases: int) -> Workers:
    if executor.name == "here":
        return _Here(work)
    if executor.name == "local":
        return _Local(work, min(executor.processes or os.cpu_count() or 1, cases), executor.seconds)
    return _Ray(work, executor.address, executor.seconds)


class _Here:
    """This process itself."""

    limit = 1

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.work = work

    def submit(self, case: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(self.work(case))
        return done

    def finished(self, running: list[Future[Any]]) -> list[Future[Any]]:
        return running

    def result(self, one: Future[Any]) -> Any:
        return one.result()

    def stop(self) -> None:
        pass


class _Local:
    """Processes of this machine."""

    def __init__(self, work: Callable[[Any], Any], processes: int, seconds: float) -> None:
        from pebble import ProcessPool

        self.limit, self.seconds = 2 * processes, seconds
        # Spawned, not forked: PyTorch's threads do not survive a fork.
        self.pool = ProcessPool(processes, initializer=_take_up, initargs=[work], context=get_context("spawn"))

    def submit(self, case: Any) -> Future[Any]:
        submitted: Future[Any] = self.pool.schedule(_work_on, [case], timeout=self.seconds)
        return submitted

    def finished(self, running: list[Future[Any]]) -> list[Future[Any]]:
        return list(wait(running, return_when=FIRST_COMPLETED).done)

    def result(self, one: Future[Any]) -> Any:
        from pebble import ProcessExpired

        try:
            return one.result()
        except ProcessExpired as death:
            raise WorkerLost(f"exit code {death.exitcode}") from None
        except TimeoutError:
            raise WorkerLost(f"after {self.seconds:g} s") from None

    def stop(self) -> None:
        self.pool.stop()
        self.pool.join()


def _take_up(work: Callable[[Any], Any]) -> None:
    """In a worker, once: what it will do, and in one thread."""
    one_thread()
    _TAKEN[:] = [work]


def _work_on(case: Any) -> Any:
    return _TAKEN[0](case)


_TAKEN: list[Callable[[Any], Any]] = []


class _Ray:
    """A Ray cluster, a core for each case."""

    def __init__(self, work: Callable[[Any], Any], address: str | None, seconds: float) -> None:
        try:
            import ray
        except ImportError:
            raise WrongUsage("--engine ray: Ray is not installed: pip install 'raylift[ray]'") from None
        self.ray, self.begun = ray, not ray.is_initialized()
        if self.begun:
            named = address or os.environ.get("RAY_ADDRESS", "")
            try:
                _knock(named)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    ray.init(address, log_to_driver=False, configure_logging=False)
            except (OSError, RuntimeError, ValueError) as error:
                remedy = "check the address; where the cluster asks for a token, set RAY_AUTH_MODE=token"
                raise WrongUsage(f"--address {named}: no Ray cluster answers there ({error}); {remedy}") from None
        self.limit = max(QUEUED, 2 * int(ray.cluster_resources().get("CPU", 1)))
        self.seconds, self.work = seconds, ray.put(work)  # to each node once
        # Deaths are counted here, as those of local workers are.
        self.task = ray.remote(num_cpus=1, max_retries=0)(_on_a_core)

    def submit(self, case: Any) -> Any:
        return self.task.remote(self.work, case, self.seconds)

    def finished(self, running: list[Any]) -> list[Any]:
        return list(self.ray.wait(running, num_returns=1)[0])

    def result(self, one: Any) -> Any:
        try:
            return self.ray.get(one)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self.ray.exceptions.RayError as death:
            raise WorkerLost(type(death).__name__) from None

    def stop(self) -> None:
        if self.begun:
            self.ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError at once where nobody listens at an address; Ray itself tries for minutes."""
    place = urlsplit(address if "//" in address else f"//{address}")
    if place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), timeout=10).close()


def _on_a_core(work: Callable[[Any], Any], case: Any, seconds: float) -> Any:
    """Work in one thread; the process ends where that takes longer, in the midst of compiled code too.

    Windows has no such alarm.
    """
    one_thread()
    if sys.platform == "win32":
        return work(case)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return work(case)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
