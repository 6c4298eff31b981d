"""Run a function on many cases, in processes of this machine or on a Ray cluster.

The function stores its results itself. If a worker dies or exceeds the time limit, its case is tried again. A case
whose worker was lost `ATTEMPTS` times is given up and reported, and the others continue.
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

Source = TypeVar("Source")
Result = TypeVar("Result")

EXECUTORS = ("local", "ray")
ATTEMPTS = 3
MIN_QUEUED = 64  # least number of cases submitted to a cluster at a time; waiting ones make an autoscaler add nodes


@dataclass(frozen=True)
class Executor:
    """A choice of where to compute.

    Args:
        name: "local" for processes of this machine, "ray" for a Ray cluster, or "here" for the current process.
        processes: the number of local processes; by default the number of cores.
        address: the address of the Ray cluster, in the form of `ray.init`; by default that of the environment, or else
            a new cluster on this machine for as long as the work lasts.
        seconds: the time limit of a case, after which its worker is killed; "here" has none.
    """

    name: str = "local"
    processes: int | None = None
    address: str | None = None
    seconds: float = 3600.0


LOCAL = Executor()
HERE = Executor("here")  # one case after another in this process, with all its threads or its GPU


@dataclass(frozen=True)
class GivenUp:
    """The result of a case that was given up.

    Args:
        reason: why, in one line.
    """

    reason: str


class WorkerLost(Exception):
    """Raised when the worker of a case died or exceeded the time limit."""


class Workers(Protocol):
    """The interface of an executor's workers.

    Attributes:
        limit: the number of cases that may be submitted at a time.
    """

    limit: int

    def submit(self, case: Any) -> Any:
        """Start the work on a case.

        Returns:
            A handle of the job.
        """

    def finished(self, running: list[Any]) -> list[Any]:
        """Wait until some of the running jobs have ended.

        Returns:
            Their handles.
        """

    def result(self, job: Any) -> Any:
        """Return the result of a job that ended; raise WorkerLost, or the error that the work raised."""

    def stop(self) -> None:
        """Stop all workers and abandon the running jobs."""


def run_cases(
    work: Callable[[Source], Result],
    cases: Mapping[str, Source],
    executor: Executor,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> Iterator[tuple[str, Result | GivenUp]]:
    """Run a function on every case.

    Raises WrongUsage, through `_Ray`, where Ray is not installed or its cluster does not answer. An error that the
    function raises ends the whole work and passes through.

    Args:
        work: the function; the workers must be able to import it, or its parts (`functools.partial`).
        cases: the function's argument for each case by name.
        executor: where to compute.
        progress: called after each case with its name, the number of finished cases and the total.

    Yields:
        The name and the result of each case in the order in which they end.
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
            for job in workers.finished(list(running)):
                name, attempt = running.pop(job)
                result: Result | GivenUp
                try:
                    result = workers.result(job)
                except WorkerLost as death:
                    if attempt < ATTEMPTS:
                        waiting.append((name, attempt + 1))
                        continue
                    result = GivenUp(f"its worker died {ATTEMPTS} times ({death})")
                done += 1
                progress(name, done, len(cases))
                yield name, result
    finally:
        workers.stop()


def one_thread() -> None:
    """Restrict this process to one thread, as there is one process for each core.

    Libraries that are not loaded yet, and may never be, are told by the environment.
    """
    os.environ |= {"OMP_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
    if (sitk := sys.modules.get("SimpleITK")) is not None:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def _begin(executor: Executor, work: Callable[[Any], Any], cases: int) -> Workers:
    """Start the workers of an executor.

    Returns:
        The workers.
    """
    if executor.name == "here":
        return _Here(work)
    if executor.name == "local":
        return _Local(work, min(executor.processes or os.cpu_count() or 1, cases), executor.seconds)
    return _Ray(work, executor.address, executor.seconds)


class _Here:
    """The current process as the only worker."""

    limit = 1

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.work = work

    def submit(self, case: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(self.work(case))
        return future

    def finished(self, running: list[Future[Any]]) -> list[Future[Any]]:
        return running

    def result(self, job: Future[Any]) -> Any:
        return job.result()

    def stop(self) -> None:
        pass


class _Local:
    """Worker processes on this machine."""

    def __init__(self, work: Callable[[Any], Any], processes: int, seconds: float) -> None:
        from pebble import ProcessPool

        self.limit, self.seconds = 2 * processes, seconds
        # Spawned, not forked: PyTorch's threads do not survive a fork.
        self.pool = ProcessPool(processes, initializer=_initialise, initargs=[work], context=get_context("spawn"))

    def submit(self, case: Any) -> Future[Any]:
        submitted: Future[Any] = self.pool.schedule(_work_on, [case], timeout=self.seconds)
        return submitted

    def finished(self, running: list[Future[Any]]) -> list[Future[Any]]:
        return list(wait(running, return_when=FIRST_COMPLETED).done)

    def result(self, job: Future[Any]) -> Any:
        from pebble import ProcessExpired

        try:
            return job.result()
        except ProcessExpired as death:
            raise WorkerLost(f"exit code {death.exitcode}") from None
        except TimeoutError:
            raise WorkerLost(f"after {self.seconds:g} s") from None

    def stop(self) -> None:
        self.pool.stop()
        self.pool.join()


def _initialise(work: Callable[[Any], Any]) -> None:
    """Set a new worker's function, and limit it to one thread."""
    one_thread()
    _WORK[:] = [work]


def _work_on(case: Any) -> Any:
    """Return the result of the worker's function for a case."""
    return _WORK[0](case)


_WORK: list[Callable[[Any], Any]] = []


class _Ray:
    """A Ray cluster, with one core for each case."""

    def __init__(self, work: Callable[[Any], Any], address: str | None, seconds: float) -> None:
        try:
            import ray
        except ImportError:
            raise WrongUsage("--engine ray: Ray is not installed: pip install 'raylift[ray]'") from None
        self.ray, self.started = ray, not ray.is_initialized()
        if self.started:
            target = address or os.environ.get("RAY_ADDRESS", "")
            try:
                _check_address(target)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    ray.init(address, log_to_driver=False, configure_logging=False)
            except (OSError, RuntimeError, ValueError) as error:
                remedy = "check the address; where the cluster asks for a token, set RAY_AUTH_MODE=token"
                raise WrongUsage(f"--address {target}: no Ray cluster answers there ({error}); {remedy}") from None
        self.limit = max(MIN_QUEUED, 2 * int(ray.cluster_resources().get("CPU", 1)))
        self.seconds, self.work = seconds, ray.put(work)  # sent to each node once
        # Ray does not retry: lost workers are counted in `run_cases`, like local ones.
        self.task = ray.remote(num_cpus=1, max_retries=0)(_work_with_limit)

    def submit(self, case: Any) -> Any:
        return self.task.remote(self.work, case, self.seconds)

    def finished(self, running: list[Any]) -> list[Any]:
        return list(self.ray.wait(running, num_returns=1)[0])

    def result(self, job: Any) -> Any:
        try:
            return self.ray.get(job)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self.ray.exceptions.RayError as death:
            raise WorkerLost(type(death).__name__) from None

    def stop(self) -> None:
        if self.started:
            self.ray.shutdown()


def _check_address(address: str) -> None:
    """Try an address once; an OSError passes through at once, while Ray itself would try for minutes."""
    url = urlsplit(address if "//" in address else f"//{address}")
    if url.hostname and url.port:
        socket.create_connection((url.hostname, url.port), timeout=10).close()


def _work_with_limit(work: Callable[[Any], Any], case: Any, seconds: float) -> Any:
    """Run the work on a case with one thread and a time limit, which ends the process even within compiled code.

    Windows has no such alarm, and so no limit.

    Returns:
        The result of the work.
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
