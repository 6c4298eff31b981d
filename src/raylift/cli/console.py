"""Progress bars and printing that the commands share."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

LOG_SECONDS = 20.0  # between two lines of progress in a log

# Progress and remarks go to standard error, so that --json leaves standard output to the JSON.
console = Console(stderr=True, highlight=False)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar with the time left; where standard error is no terminal, as in a log, a line now and then instead.

    Yields:
        A function that takes a note on what was finished, how many are, and the total.
    """
    if not console.is_terminal:
        yield _log_lines(label)
        return
    columns = [
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(), _Pace(), TextColumn("{task.fields[note]}"),
    ]  # fmt: skip
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(label, total=None, note="")

        def advance(note: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, note=note)

        yield advance


class _Pace(ProgressColumn):
    """How many are done in a minute."""

    def render(self, task: Task) -> Text:
        return Text(f"{60 * task.speed:.3g} a minute" if task.speed else "")


def _log_lines(label: str) -> Callable[[str, int, int], None]:
    begun = printed = time.monotonic()
    before = first = 0

    def advance(note: str, done: int, total: int) -> None:
        nonlocal begun, printed, before, first
        now = time.monotonic()
        if done <= before or before == 0:  # something new is counted
            begun, first = now, done
        before = done
        if done == total or (done > first and now - printed > LOG_SECONDS):
            pace = 60 * (done - first) / max(1e-9, now - begun)
            left = f"{pace:.3g} a minute, {(total - done) / pace:.0f} minutes left" if pace else "0 minutes left"
            say(f"{label}: {done} of {total}, {left}  {note}")
            printed = now

    return advance


def say(line: str) -> None:
    """Print a line on standard error, never wrapped: paths stay whole."""
    console.print(line, markup=False, soft_wrap=True)


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of the same keys as a table on standard output, numbers to the right, nothing cut short."""
    table = Table(box=None, pad_edge=False)
    for key, value in rows[0].items():
        table.add_column(key.replace("_", " "), justify="left" if isinstance(value, str) else "right", overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else escape(f"{value}") for value in row.values()))
    Console(highlight=False, width=None if sys.stdout.isatty() else 200).print(table)


def print_json(data: Any) -> None:
    """Print JSON on standard output."""
    print(json.dumps(data, indent=2))
