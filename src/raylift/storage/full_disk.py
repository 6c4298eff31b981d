"""Whether a write failed because a disk is full."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raylift.errors import OTHER_FOLDER, DiskFull

FULL = (errno.ENOSPC, errno.EDQUOT)  # the system's error codes of a full disk
TRIAL = 2**16  # bytes that are written as a trial


def is_full(folder: Path, error: BaseException) -> bool:
    """Return whether a write failed because the disk is full.

    The error tells, or, where it does not say why, another trial to write.

    Args:
        folder: the folder that was written to; the incomplete file must still be in it.
        error: the error that a library raised.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    if any(words in str(error) for words in ("No space left", "os error 28", "disk is full")):
        return True
    try:
        try_writing(folder)
    except OSError as failed:
        return failed.errno in FULL
    return False


def try_writing(folder: Path) -> None:
    """Write a small file to a folder and remove it. An OSError of the system passes through."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(TRIAL))


@contextmanager
def detect_full_disk(path: object, folder: Path, remedy: str = OTHER_FOLDER) -> Iterator[None]:
    """Raise DiskFull in place of the error of a block that fails because the disk is full.

    Args:
        path: the path that the error names.
        folder: the folder on this machine that the block writes to.
        remedy: what the user can do about it.

    Yields:
        Nothing.

    Raises:
        DiskFull: the disk is full.
    """
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:
        if is_full(folder, error):
            raise DiskFull(path, remedy) from error
        raise
