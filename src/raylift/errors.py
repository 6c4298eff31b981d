"""The errors a user can cause, each one line that says which file, what is wrong and what to do."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

FEW = 20  # names that a line can hold


class BadInput(ValueError):
    """An input that Raylift cannot use; the command line prints it as one line and exits with code 3.

    Args:
        what: the file, folder or value at fault.
        problem: what is wrong with it.
        remedy: what the user can do about it.
    """

    def __init__(self, what: object, problem: str, remedy: str = "") -> None:
        # The base class calls the class with these again when a worker process sends the error.
        super().__init__(str(what), problem, remedy)

    def __str__(self) -> str:
        what, problem, remedy = self.args
        line = f"{what}: {problem}" + (f"; {remedy}" if remedy else "")
        return " ".join(line.split())


class WrongUsage(ValueError):
    """A command, option or name that does not exist or does not fit; exit code 2."""


class Failed(RuntimeError):
    """Work that failed, for a reason that the one line of its text names; exit code 1."""


class DiskFull(OSError):
    """There is no room for what is to be written; exit code 1.

    Args:
        place: file or folder that was to be written.
    """

    def __init__(self, place: object) -> None:
        super().__init__(errno.ENOSPC, "the disk is full", str(place))

    def __reduce__(self) -> tuple[type[DiskFull], tuple[object]]:
        """Return how a worker process sends the error: by its place, not by an OSError's three arguments."""
        return DiskFull, (self.filename,)

    def __str__(self) -> str:
        return f"{self.filename}: the disk is full; make room, or name another place, and do the same again"


@contextmanager
def named(what: object) -> Iterator[None]:
    """Name the file in the BadInput that a block raises about "scan", as functions on volumes call it."""
    try:
        yield
    except BadInput as error:
        raise BadInput(what, str(error).removeprefix("scan: ")) from None


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Which of the names is spelt most like this one; None if there are none."""
    return next(iter(difflib.get_close_matches(name, list(names), 1, 0.0)), None)


def known(name: str, names: Iterable[str], kind: str) -> str:
    """The name, if it is one of `names`; else WrongUsage with the nearest, as "'swim' is no network; ..."."""
    choices = list(names)
    if name in choices:
        return name
    few = f" of {', '.join(choices)}" if len(choices) <= FEW else ""
    raise WrongUsage(f"'{name}' is no {kind}; the nearest is '{nearest(name, choices)}'{few}")
