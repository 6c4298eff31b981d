"""The `raylift` command: parse, call the package, print. Heavy imports wait until a command runs."""

from __future__ import annotations

import errno
import os
import sys

from raylift.errors import BadInput, DiskFull, Failed, WrongUsage

__all__ = ["main"]


def main() -> None:
    """Run the command line; exit codes: 0 done, 1 failed, 2 wrong usage, 3 bad input."""
    from raylift.cli.registered import app

    try:
        _check_names()
        app()
    except BadInput as error:
        _fail(str(error), 3)
    except WrongUsage as error:
        _fail(str(error), 2)
    except Failed as error:
        _fail(str(error), 1)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):  # wherever it was
            _fail(
                str(
                    error
                    if isinstance(error, DiskFull)
                    else DiskFull(error.filename or "an output, a temporary file (TMPDIR) or shared memory")
                ),
                1,
            )
        if os.environ.get("RAYLIFT_DEBUG"):
            raise
        _fail(f"{type(error).__name__}: {error} (RAYLIFT_DEBUG=1 shows where)", 1)


def _check_names() -> None:
    """Check that all arguments are text: reports could not name a file whose name is not, and ITK cannot open it.

    Raises:
        BadInput: one is not.
    """
    for word in sys.argv[1:]:
        shown = word.encode(errors="surrogateescape").decode(errors="replace")
        if shown != word:
            raise BadInput(shown, "its name is not text in UTF-8", "rename it")


def _fail(line: str, code: int) -> None:
    print(f"raylift: {' '.join(line.split())}", file=sys.stderr)
    sys.exit(code)
