"""Bulk work: every case once, whatever happens to the workers; on processes and on Ray alike."""

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

import bulk_work
from raylift.errors import WrongUsage
from raylift.parallel.executors import ATTEMPTS, HERE, Executor, GivenUp, run_cases

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on this machine, whose workers get the tests' functions by value."""
    ray.cloudpickle.register_pickle_by_value(bulk_work)
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


@pytest.fixture(params=["local", "ray"])
def executor(request: pytest.FixtureRequest) -> Executor:
    if request.param == "ray":
        request.getfixturevalue("cluster")
        return Executor("ray")
    return Executor("local", 2)


def numbers(count: int) -> dict[str, int]:
    return {f"case {k}": k for k in range(count)}


def test_every_case_once(executor: Executor) -> None:
    seen: list[tuple[str, int, int]] = []
    found = list(run_cases(bulk_work.double, numbers(9), executor, lambda *step: seen.append(step)))
    assert dict(found) == {f"case {k}": 2 * k for k in range(9)}
    assert len(found) == 9
    assert [(done, total) for _, done, total in seen] == [(k, 9) for k in range(1, 10)]
    assert {name for name, _, _ in seen} == set(dict(found))


def test_here_is_this_process() -> None:
    assert set(dict(run_cases(bulk_work.pid, numbers(3), HERE)).values()) == {os.getpid()}
    with pytest.raises(OSError, match="No space left on device"):
        list(run_cases(bulk_work.fail_at_three, numbers(8), HERE))


def test_nothing_to_do(executor: Executor) -> None:
    assert list(run_cases(bulk_work.double, {}, executor)) == []


def test_a_case_whose_worker_dies_is_tried_again(executor: Executor, tmp_path) -> None:
    cases = {str(k): tmp_path / str(k) for k in range(3)}
    assert dict(run_cases(bulk_work.die_once, cases, executor)) == dict.fromkeys(cases, "done")


def test_a_case_that_kills_is_given_up_and_the_others_go_on(executor: Executor) -> None:
    found = dict(run_cases(bulk_work.die_at_three, numbers(8), executor))
    lost = found.pop("case 3")
    assert isinstance(lost, GivenUp)
    assert f"died {ATTEMPTS} times" in lost.reason
    assert found == {name: k for name, k in numbers(8).items() if k != 3}


def test_a_case_without_end_is_given_up_and_the_others_go_on(executor: Executor) -> None:
    found = dict(run_cases(bulk_work.hang_at_three, numbers(8), replace(executor, seconds=0.5)))
    lost = found.pop("case 3")
    assert isinstance(lost, GivenUp)
    assert f"died {ATTEMPTS} times" in lost.reason
    assert found == {name: k for name, k in numbers(8).items() if k != 3}


def test_what_the_work_raises_ends_it(executor: Executor) -> None:
    with pytest.raises(OSError, match="No space left on device"):
        list(run_cases(bulk_work.fail_at_three, numbers(8), executor))


def test_no_cluster_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(WrongUsage, match="no Ray cluster answers"):
        list(run_cases(bulk_work.double, numbers(1), Executor("ray", address="127.0.0.1:1")))
