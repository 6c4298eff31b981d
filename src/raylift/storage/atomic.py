"""Files written as a whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from raylift.errors import DiskFull
from raylift.storage.paths import StoragePath, reaching, remove, stem_of, suffix_of
from raylift.storage.scratch import scratch_folder

FULL = (errno.ENOSPC, errno.EDQUOT)  # as the system says that a disk is full
TRIAL = 2**16  # bytes that a disk which is not full takes


def is_full(folder: Path, error: BaseException) -> bool:
    """Tell whether a write failed since the disk is full: by the error, or by a trial where it does not say why.

    Args:
        folder: that was written into; what was written must still be there.
        error: that a library raised.
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
    """Write a little into a folder and take it away. Raises OSError where that fails."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(TRIAL))


@contextmanager
def atomic_write(path: StoragePath) -> Iterator[Path]:
    """A temporary path of the same ending that takes `path`'s place when the block ends well, else vanishes."""
    ending, stem = suffix_of(path), stem_of(path)
    folder = None
    if isinstance(path, Path):
        folder = path.parent
        folder.mkdir(parents=True, exist_ok=True)
    with naming_a_full_disk(path, folder or Path(tempfile.gettempdir())):
        handle, name = tempfile.mkstemp(dir=folder, prefix=f".{stem}.", suffix=f".partial{ending}")
    os.close(handle)
    temporary = Path(name)
    try:
        with naming_a_full_disk(path, temporary.parent):
            yield temporary
            temporary.chmod(_mode())
            _move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming_a_full_disk(path: StoragePath, folder: Path) -> Iterator[None]:
    """Let a block's failure to write into a folder of this machine be called a full disk, where it is one.

    Args:
        path: that is named.
        folder: that the block writes into.

    Raises:
        DiskFull: there is no room.
    """
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:
        if is_full(folder, error):
            raise DiskFull(path) from error
        raise


def _mode() -> int:
    """Return what a new file may be to whom: as the user's umask says."""
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask


@contextmanager
def atomic_write_folder(folder: StoragePath) -> Iterator[Path]:
    """A temporary folder whose files go to `folder`, in place of those of the same names, when the block ends well.

    A folder that is made for them is gone again where it does not. Raises Unreachable of a store.
    """
    if not isinstance(folder, Path):
        with scratch_folder() as written:
            yield written
            for path in sorted(written.rglob("*")):
                there = folder / path.relative_to(written).as_posix()
                _move(path, there) if path.is_file() else remove(there)
        return
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with (
            tempfile.TemporaryDirectory(dir=folder, prefix=".", suffix=".partial") as name,
            naming_a_full_disk(folder, folder),
        ):
            yield Path(name)
            for file in sorted(Path(name).iterdir()):
                if file.is_file():
                    file.chmod(_mode())
                else:  # a folder does not take the place of another
                    remove(folder / file.name)
                os.replace(file, folder / file.name)
    except BaseException:
        if new:
            with suppress(OSError):  # others may have written there
                folder.rmdir()
        raise


def write_json(data: object, path: StoragePath) -> None:
    """Write indented JSON, as a whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(data, indent=2) + "\n")


def _move(file: Path, path: StoragePath) -> None:
    """A file of this machine to a place, whole at once."""
    if isinstance(path, Path):
        os.replace(file, path)
    else:
        with reaching(path, "written"):
            path.fs.put(str(file), path.path)  # an object is there when all of it is
