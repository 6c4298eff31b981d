"""Temporary folders that do not remain on the disk after a process was killed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

SCRATCH = "raylift-scratch-"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Create a temporary folder for as long as the block lasts.

    Folders that killed processes left behind are removed, since scans in them would fill the disk.

    Yields:
        The folder.
    """
    for lock in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*/.lock"):
        with suppress(OSError, Timeout), FileLock(lock, timeout=0):
            shutil.rmtree(lock.parent)
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as name, FileLock(Path(name) / ".lock"):
        (Path(name) / "files").mkdir()
        yield Path(name) / "files"
