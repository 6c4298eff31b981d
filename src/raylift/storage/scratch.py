"""Temporary files, in the folder that TMPDIR names; they do not remain on the disk after a process was killed."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from raylift.errors import BadInput, DiskFull, WrongUsage
from raylift.storage.full_disk import is_full, try_writing

SCRATCH = "raylift-scratch-"
REMEDY = "set TMPDIR to a folder with room"  # for temporary files


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Create a temporary folder for as long as the block lasts.

    Folders that killed processes left behind are removed, since scans in them would fill the disk. Raises DiskFull,
    through `detect_full_tmpdir`, where the block finds no room.

    Yields:
        The folder.
    """
    for lock in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*/.lock"):
        with suppress(OSError, Timeout), FileLock(lock, timeout=0):
            shutil.rmtree(lock.parent)
    with (
        detect_full_tmpdir(),
        tempfile.TemporaryDirectory(prefix=SCRATCH) as name,
        FileLock(Path(name) / ".lock"),
    ):
        (Path(name) / "files").mkdir()
        yield Path(name) / "files"


@contextmanager
def detect_full_tmpdir() -> Iterator[None]:
    """Raise DiskFull, naming the folder of temporary files, in place of the error of a block that finds no room there.

    Yields:
        Nothing.

    Raises:
        BadInput: the block raised it.
        WrongUsage: the block raised it.
        DiskFull: the disk is full, that of temporary files or, if the block raised it, another one.
    """
    folder = Path(tempfile.gettempdir())
    try:
        yield
    except (BadInput, WrongUsage, DiskFull):
        raise
    except Exception as error:
        if is_full(folder, error):
            raise DiskFull(folder, REMEDY) from error
        raise


def prepare_tmpdir(beside: Path | None = None) -> None:
    """Check before the work that temporary files can be written, as libraries do even while they are imported.

    Where that is impossible in TMPDIR and in the system's folders, they are written to a folder of their own beside the
    output, which is removed when the process ends. Raises DiskFull, through `detect_full_tmpdir`, where there is no
    room.

    Args:
        beside: the folder of this machine that holds the output or will; None where the output is in a store, to which
            files are written through temporary ones.

    Raises:
        BadInput: nowhere can temporary files be written.
    """
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        if beside is None:
            raise BadInput("temporary files", f"they cannot be written ({error.strerror})", REMEDY) from None
        # Other processes are told by the environment.
        tempfile.tempdir = os.environ["TMPDIR"] = tempfile.mkdtemp(dir=beside, prefix=".raylift-", suffix=".partial")
        atexit.register(shutil.rmtree, tempfile.tempdir, ignore_errors=True)
        return
    if beside is None:
        with detect_full_tmpdir():
            try_writing(folder)
