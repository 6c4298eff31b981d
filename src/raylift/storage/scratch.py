"""Temporary folders that do not stay where a process is killed."""

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
    """A temporary folder. Those that killed processes left are removed: a scan in each would fill the disk."""
    for lock in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*/.lock"):
        with suppress(OSError, Timeout), FileLock(lock, timeout=0):
            shutil.rmtree(lock.parent)
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as name, FileLock(Path(name) / ".lock"):
        (Path(name) / "files").mkdir()
        yield Path(name) / "files"
