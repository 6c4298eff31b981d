"""Parts of a loop cover it once, on as many threads as PyTorch may use; a first run computes as later ones do."""

import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from raylift.numerics.compiled import filling, in_parts


@pytest.mark.parametrize("count", [0, 1, 2, 5, 100])
def test_parts_cover_everything_once(threads: int, count: int) -> None:
    done: list[int] = []
    names: set[str] = set()

    def work(start: int, stop: int) -> None:
        done.extend(range(start, stop))
        names.add(threading.current_thread().name)

    in_parts(work, count)
    assert sorted(done) == list(range(count))
    assert len(names) <= threads


@pytest.mark.usefixtures("threads")
def test_errors_are_not_lost() -> None:
    def work(start: int, stop: int) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        in_parts(work, 10)


def test_filling_puts_the_part_between_what_is_given_and_what_is_filled() -> None:
    seen: list[tuple[object, ...]] = []
    filling(lambda *arguments: seen.append(arguments), ("a", "b"), ("c",))(2, 5)  # type: ignore[arg-type]
    assert seen == [("a", "b", 2, 5, "c")]


PROJECTION = """
import hashlib, torch
from raylift.drr.operator import ProjectionOperator
from raylift.geometry import Geometry, View, VolumeGrid

torch.manual_seed(0)
volume = torch.rand(1, 48, 48, 48)
grid = VolumeGrid.cube((0, 0, 0), 320.0, 48)
xrays = ProjectionOperator(grid, Geometry.preset("chest-stand", 64).cameras([View(0.0), View(73.0)]))(volume)
print(hashlib.sha256(xrays.numpy().tobytes()).hexdigest())
"""


def test_a_first_run_computes_what_later_ones_do(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROJECTION]
    first, again = (
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout for _ in range(2)
    )
    assert any(tmp_path.rglob("*.nbi"))
    assert first == again != ""


def test_a_cache_without_room_is_done_without(tmp_path: Path) -> None:
    """Where its disk is full; a limit on the size of files stands for that."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # noqa: E731
    command = [sys.executable, "-c", PROJECTION]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, preexec_fn=limit)
    assert len(done.stdout) == 65
    assert not any(path.stat().st_size for path in tmp_path.rglob("*.nb*"))
