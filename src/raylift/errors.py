"""The errors that a user can cause, each a line that names the file, the problem and the remedy."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

OTHER_FOLDER = "make room or choose another folder"  # what to do where a disk is full
FEW = 20  # names that an error lists at most


class BadInput(ValueError):
    """An input that Raylift cannot use; the command line prints it as one line and exits with code 3.

    Args:
        what: the file, folder or value at fault.
        problem: what is wrong with it.
        remedy: what the user can do about it.
    """

    def __init__(self, what: object, problem: str, remedy: str = "") -> None:
        # Unpickling an error from a worker process calls the class again with these arguments.
        super().__init__(str(what), problem, remedy)

    def __str__(self) -> str:
        what, problem, remedy = self.args
        line = f"{what}: {problem}" + (f"; {remedy}" if remedy else "")
        return " ".join(line.split())


class WrongUsage(ValueError):
    """A command, option or name that does not exist or is not valid here; exit code 2."""


class Failed(RuntimeError):
    """Work that failed, for the reason that its one line of text gives; exit code 1."""


class DiskFull(OSError):
    """The disk has no room for a file that is to be written; exit code 1.

    Args:
        path: file or folder that was to be written.
        remedy: what the user can do about it.
    """

    def __init__(self, path: object, remedy: str = OTHER_FOLDER) -> None:
        super().__init__(errno.ENOSPC, "the disk is full", str(path))
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[DiskFull], tuple[object, str]]:
        """Return how to pickle the error: with its path, not with an OSError's three arguments."""
        return DiskFull, (self.filename, self.remedy)

    def __str__(self) -> str:
        return f"{self.filename}: the disk is full; {self.remedy}, then try again"


@contextmanager
def named(what: object) -> Iterator[None]:
    """Put the name of the file into a BadInput that the block raises about "scan", as functions on volumes do.

    Raises:
        BadInput: the block raised it.
    """
    try:
        yield
    except BadInput as error:
        raise BadInput(what, str(error).removeprefix("scan: ")) from None


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return which of the names is spelt most like this one; None if there are no names."""
    return next(iter(difflib.get_close_matches(name, list(names), 1, 0.0)), None)


def known(name: str, names: Iterable[str], kind: str) -> str:
    """Return the name if it is one of `names`.

    Args:
        name: the name that the user gave.
        names: the names that exist.
        kind: what the names stand for, like "network", for the message "'swim' is no network; ...".

    Returns:
        The same name.

    Raises:
        WrongUsage: it is not; the message gives the name that is spelt most like it.
    """
    choices = list(names)
    if name in choices:
        return name
    few = f" of {', '.join(choices)}" if len(choices) <= FEW else ""
    raise WrongUsage(f"'{name}' is no {kind}; the nearest is '{nearest(name, choices)}'{few}")
