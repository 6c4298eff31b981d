"""Parts of a loop cover it once, on as many threads as PyTorch may use."""

import threading

import pytest

from raylift.compiled import filling, in_parts


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
