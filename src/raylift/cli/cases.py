"""Options of the commands that work on many cases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer

from raylift.cli.console import say
from raylift.cli.parsing import check_choice
from raylift.errors import BadInput, WrongUsage
from raylift.parallel.executors import EXECUTORS, HERE, Executor

if TYPE_CHECKING:
    from raylift.parallel.cases import TaskRecord

FEW_NAMES = 10  # of files that are no cases


def parse_executor(name: str, processes: int | None, address: str | None, *, here: bool = False) -> Executor:
    """Return the executor that options name: with `here` and no number of processes, this process itself.

    Raises:
        WrongUsage: options contradict each other.
    """
    check_choice("--engine", name, EXECUTORS)
    if name == "local" and address is not None:
        raise WrongUsage("--address is a Ray cluster's: give --engine ray too")
    if name == "ray" and processes is not None:
        raise WrongUsage("--processes is for --engine local: a Ray cluster has a case for each core")
    return HERE if here and name == "local" and processes is None else Executor(name, processes, address)


def report_failures(
    records: Mapping[str, TaskRecord],
    done: str,
    output: object,
    left_out: Mapping[str, str] | None = None,
    no_cases: Mapping[str, str] | None = None,
) -> None:
    """Name the cases that are not done, or of which something is to be said, and how many are.

    Args:
        records: the cases' records.
        done: what was done, for the summary.
        output: where the results are.
        left_out: why files that may be cases were left out.
        no_cases: other files in the folder, which are no cases.

    Raises:
        typer.Exit: with code 1 where a case failed that may succeed another time, with 3 where some were left out.
        BadInput: where none is done.
    """
    states = [record.status for record in records.values()]
    for name, record in records.items():
        for text in [record.reason] if record.reason else record.warnings:
            say(f"{name}: {record.status}: {text}")
    for name, reason in (left_out or {}).items():
        say(f"{name}: left out: {reason}")
    if no_cases:
        first = ", ".join(list(no_cases)[:FEW_NAMES])
        say(f"not used: {first}{f' and {len(no_cases) - FEW_NAMES} more' if len(no_cases) > FEW_NAMES else ''}")
    say(f"{states.count('ok')} of {len(records)} {done} in {output}")
    if "failed" in states:
        say("the same command again tries only those that failed")
        raise typer.Exit(1)
    if "ok" not in states:
        raise BadInput(output, "none could be done", "see the lines above")
    if "rejected" in states or left_out:
        raise typer.Exit(3)
