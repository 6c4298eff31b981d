"""The errors a user can cause, each one line that says which file, what is wrong and what to do."""


class BadInput(ValueError):
    """An input that Raylift cannot use; the command line prints it as one line and exits with code 3.

    Args:
        what: the file, folder or value at fault.
        problem: what is wrong with it.
        remedy: what the user can do about it.
    """

    def __init__(self, what: object, problem: str, remedy: str = "") -> None:
        line = f"{what}: {problem}" + (f"; {remedy}" if remedy else "")
        super().__init__(" ".join(line.split()))


class WrongUsage(ValueError):
    """A command, option or name that does not exist or does not fit; exit code 2."""
