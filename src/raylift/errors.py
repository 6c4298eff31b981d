"""The errors a user can cause, each one line that says which file, what is wrong and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager


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


@contextmanager
def named(what: object) -> Iterator[None]:
    """Name the file in the BadInput that a block raises about "scan", as functions on volumes call it."""
    try:
        yield
    except BadInput as error:
        raise BadInput(what, str(error).removeprefix("scan: ")) from None
