"""Write files as a whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from raylift.errors import DiskFull
from raylift.storage.paths import StoragePath, remove, stem_of, store_errors, suffix_of
from raylift.storage.scratch import scratch_folder

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
def atomic_write(path: StoragePath) -> Iterator[Path]:
    """Write a file through a temporary one, which replaces `path` if the block succeeds and is removed if not.

    Args:
        path: the file to write; the folders above it are created.

    Yields:
        A temporary path with the same ending, which the block writes to.
    """
    ending, stem = suffix_of(path), stem_of(path)
    folder = None
    if isinstance(path, Path):
        folder = path.parent
        folder.mkdir(parents=True, exist_ok=True)
    with detect_full_disk(path, folder or Path(tempfile.gettempdir())):
        handle, name = tempfile.mkstemp(dir=folder, prefix=f".{stem}.", suffix=f".partial{ending}")
    os.close(handle)
    temporary = Path(name)
    try:
        with detect_full_disk(path, temporary.parent):
            yield temporary
            temporary.chmod(_mode())
            _move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def detect_full_disk(path: StoragePath, folder: Path) -> Iterator[None]:
    """Raise DiskFull in place of the error of a block that fails because the disk is full.

    Args:
        path: the path that the error names.
        folder: the folder on this machine that the block writes to.

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
            raise DiskFull(path) from error
        raise


def _mode() -> int:
    """Return the permissions of a new file under the user's umask."""
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask


@contextmanager
def atomic_write_folder(folder: StoragePath) -> Iterator[Path]:
    """Write files through a temporary folder; if the block succeeds, they replace those of the same names in `folder`.

    Where the block fails, `folder` is removed if it is new. Raises Unreachable, through `_move`, where a store cannot
    be written.

    Args:
        folder: the folder to write to; it is created.

    Yields:
        A temporary folder, which the block writes to.
    """
    if not isinstance(folder, Path):
        with scratch_folder() as written:
            yield written
            for path in sorted(written.rglob("*")):
                target = folder / path.relative_to(written).as_posix()
                _move(path, target) if path.is_file() else remove(target)
        return
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with (
            tempfile.TemporaryDirectory(dir=folder, prefix=".", suffix=".partial") as name,
            detect_full_disk(folder, folder),
        ):
            yield Path(name)
            for file in sorted(Path(name).iterdir()):
                if file.is_file():
                    file.chmod(_mode())
                else:  # os.replace does not replace a folder by another
                    remove(folder / file.name)
                os.replace(file, folder / file.name)
    except BaseException:
        if new:
            with suppress(OSError):  # another process may have written to it
                folder.rmdir()
        raise


def write_json(data: object, path: StoragePath) -> None:
    """Write indented JSON, as a whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(data, indent=2) + "\n")


def _move(file: Path, path: StoragePath) -> None:
    """Move a file of this machine to a path or URL in one step."""
    if isinstance(path, Path):
        os.replace(file, path)
    else:
        with store_errors(path, "written"):
            path.fs.put(str(file), path.path)  # a store shows an object only when it is complete
