"""Work that is recorded case by case: done once, resumed, and no case in the way of another."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from raylift.errors import BadInput
from raylift.parallel.cases import RECORD, run_tasks
from raylift.parallel.executors import HERE, Executor, GivenUp
from raylift.storage.paths import Unreachable, storage_path

COMPUTED: list[str] = []


class StoreError(Exception):
    """No OSError, as those of botocore."""


@dataclass(frozen=True)
class Doubling:
    """Twice the number in a file."""

    factor: int = 2

    def depends_on(self, source: Path) -> Any:
        return [source.read_text() if source.exists() else "", self.factor]

    def compute(self, source: Path) -> int:
        COMPUTED.append(source.name)
        text = source.read_text() if source.exists() else "away"
        if text == "away":
            raise Unreachable(source, "cannot be read", "try again")
        if text == "full":
            raise OSError(28, "No space left on device")
        if text == "bug":
            raise ZeroDivisionError(f"in\n{source}")
        try:
            return self.factor * int(text)
        except ValueError:
            raise BadInput(source, "no number", "write one") from None

    def write(self, made: int, folder: Path) -> tuple[dict[str, Any], list[str]]:
        if made == 14:
            raise ZeroDivisionError("while writing")
        (folder / "result.txt").write_text(str(made))
        return {"made": made}, ["result.txt"]


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    """One to three, and what is no number, what is a bug and what is not there."""
    COMPUTED.clear()
    (tmp_path / "in").mkdir()
    texts = {"a": "1", "b": "two", "c": "3", "d": "bug", "f": "4"}
    for name, text in texts.items():
        (tmp_path / "in" / name).write_text(text)
    return {name: tmp_path / "in" / name for name in "abcdef"}


def test_each_case_is_recorded(sources: dict[str, Path], tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    records = run_tasks(Doubling(), sources, tmp_path / "out", HERE, lambda *step: steps.append(step))
    assert {name: (record.status, record.reason) for name, record in records.items()} == {
        "a": ("ok", ""),
        "b": ("rejected", "b: no number; write one"),
        "c": ("ok", ""),
        "d": ("failed", "ZeroDivisionError: in d"),
        "e": ("failed", "e: cannot be read; try again"),
        "f": ("ok", ""),
    }
    for name, record in records.items():
        assert json.loads((tmp_path / "out" / name / RECORD).read_text()) == record.to_dict()
    assert (records["c"].detail("made"), (tmp_path / "out" / "c" / "result.txt").read_text()) == (6, "6")
    assert [step[1:] for step in steps] == [(k, 6) for k in range(1, 7)]


def test_what_cannot_be_written_stops_no_other(sources: dict[str, Path], tmp_path: Path) -> None:
    sources["a"].write_text("7")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "c").write_text("a file, where the case's folder is to be")
    cases = {name: sources[name] for name in "acf"}
    records = run_tasks(Doubling(), cases, tmp_path / "out", HERE)
    assert [record.status for record in records.values()] == ["failed", "failed", "ok"]
    assert records["a"].reason == "ZeroDivisionError: while writing"


def test_only_what_failed_is_done_again(sources: dict[str, Path], tmp_path: Path) -> None:
    first = run_tasks(Doubling(), sources, tmp_path / "out", HERE)
    COMPUTED.clear()
    assert run_tasks(Doubling(), sources, tmp_path / "out", HERE) == first
    assert COMPUTED == ["d", "e"]


@pytest.mark.parametrize("harm", ["source", "settings", "missing", "damaged", "record"])
def test_what_changed_is_done_again(sources: dict[str, Path], tmp_path: Path, harm: str) -> None:
    cases, result = {"a": sources["a"], "c": sources["c"]}, tmp_path / "out" / "a" / "result.txt"
    run_tasks(Doubling(), cases, tmp_path / "out", HERE)
    COMPUTED.clear()
    work = Doubling()
    if harm == "source":
        sources["a"].write_text("5")
    elif harm == "settings":
        work = replace(work, factor=3)
    elif harm == "missing":
        result.unlink()
    elif harm == "damaged":
        result.write_text("7")
    else:
        result.with_name(RECORD).write_text("{")
    run_tasks(work, cases, tmp_path / "out", HERE)
    assert COMPUTED == ["a"] if harm != "settings" else ["a", "c"]
    assert result.read_text() == {"source": "10", "settings": "3"}.get(harm, "2")


def test_nothing_is_left_of_a_source_that_goes_bad(sources: dict[str, Path], tmp_path: Path) -> None:
    run_tasks(Doubling(), {"a": sources["a"]}, tmp_path / "out", HERE)
    sources["a"].write_text("no number")
    (tmp_path / "out" / "a" / ".x.partial").mkdir()  # of a worker that was killed
    assert run_tasks(Doubling(), {"a": sources["a"]}, tmp_path / "out", HERE)["a"].status == "rejected"
    assert [path.name for path in (tmp_path / "out" / "a").iterdir()] == [RECORD]


def test_a_record_does_not_reach_out_of_its_folder(sources: dict[str, Path], tmp_path: Path) -> None:
    run_tasks(Doubling(), {"a": sources["a"]}, tmp_path / "out", HERE)
    path = tmp_path / "out" / "a" / RECORD
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"files": ["../../in/a", str(sources["c"])], "fingerprint": "other"}))
    assert run_tasks(Doubling(), {"a": sources["a"]}, tmp_path / "out", HERE)["a"].detail("made") == 2
    assert sources["a"].exists()
    assert sources["c"].exists()


def test_a_link_in_a_record_is_not_followed(sources: dict[str, Path], tmp_path: Path) -> None:
    run_tasks(Doubling(), {"a": sources["a"]}, tmp_path / "out", HERE)
    path = tmp_path / "out" / "a" / RECORD
    (path.parent / "link").symlink_to(sources["c"].parent)
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"files": ["link/c"], "fingerprint": "0" * 64}))
    assert run_tasks(Doubling(), {"a": sources["a"]}, tmp_path / "out", HERE)["a"].detail("made") == 2
    assert sources["c"].exists()


@pytest.mark.parametrize(
    "content", ["pipe", "[" * 100_000, '{"status": "ok", "files": []}', '{"status": NaN}', "x" * 100]
)
def test_a_record_that_cannot_be_counts_for_nothing(sources: dict[str, Path], tmp_path: Path, content: str) -> None:
    run_tasks(Doubling(), {"a": sources["a"]}, tmp_path / "out", HERE)
    path = tmp_path / "out" / "a" / RECORD
    path.unlink()
    if content == "pipe":
        os.mkfifo(path)
    else:
        path.write_text(content)
    COMPUTED.clear()
    assert run_tasks(Doubling(), {"a": sources["a"]}, tmp_path / "out", HERE)["a"].detail("made") == 2
    assert COMPUTED == ["a"]


def test_a_store_that_takes_nothing_costs_a_try(sources: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    output, cases = storage_path("memory://results"), {"a": sources["a"], "c": sources["c"]}

    def down(*_: object) -> None:
        raise StoreError("down")

    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "put", down)
        records = run_tasks(Doubling(), cases, output, HERE)
    assert {record.status for record in records.values()} == {"failed"}
    assert "a/result.txt: cannot be written (StoreError: down)" in records["a"].reason
    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "cat_file", down)
        assert run_tasks(Doubling(), cases, output, HERE)["a"].status == "failed"
    assert run_tasks(Doubling(), cases, output, HERE)["a"].detail("made") == 2
    assert (output / "a" / "result.txt").read_text() == "2"


def test_a_full_disk_ends_it(sources: dict[str, Path], tmp_path: Path) -> None:
    sources["b"].write_text("full")
    with pytest.raises(OSError, match="No space left"):
        run_tasks(Doubling(), sources, tmp_path / "out", HERE)
    assert COMPUTED == ["a", "b"]
    assert sorted(path.name for path in (tmp_path / "out").glob("*/*")) == [RECORD, "result.txt"]


def test_a_case_that_kills_its_workers_is_recorded(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(work: object, cases: dict[str, object], *_: object) -> Any:
        return ((name, GivenUp("its worker died 3 times")) for name in reversed(cases))

    monkeypatch.setattr("raylift.parallel.cases.run_cases", lose)
    records = run_tasks(Doubling(), {"a": sources["a"], "c": sources["c"]}, tmp_path / "out", Executor())
    assert list(records) == ["a", "c"]
    expected = {"source": "a", "status": "failed", "reason": "its worker died 3 times"}
    assert records["a"].to_dict() == json.loads((tmp_path / "out" / "a" / RECORD).read_text()) == expected
