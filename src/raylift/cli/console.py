"""Progress bars and printing that the commands share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

# Progress and remarks go to standard error, so that --json leaves standard output to the JSON.
console = Console(stderr=True, highlight=False)


@contextmanager
def progress_bar(label: str, *, hidden: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """A bar with the time left; yields a function that takes what was finished, how many are, and the total."""
    columns = [
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    ]  # fmt: skip
    with Progress(*columns, console=console, disable=hidden) as bar:
        task = bar.add_task(label, total=None, note="")

        def advance(note: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, note=note)

        yield advance


def say(line: str) -> None:
    """One line on standard error, never wrapped: paths stay whole."""
    console.print(line, markup=False, soft_wrap=True)


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows with the same keys as a table on standard output; numbers to the right, nothing cut short."""
    table = Table(box=None, pad_edge=False)
    for key, value in rows[0].items():
        table.add_column(key.replace("_", " "), justify="left" if isinstance(value, str) else "right", overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else escape(f"{value}") for value in row.values()))
    Console(highlight=False, width=None if sys.stdout.isatty() else 200).print(table)


def print_json(data: Any) -> None:
    """JSON on standard output."""
    print(json.dumps(data, indent=2))
