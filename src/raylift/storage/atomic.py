"""Write files as a whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from raylift.storage.full_disk import detect_full_disk
from raylift.storage.paths import StoragePath, remove, stem_of, store_errors, suffix_of
from raylift.storage.scratch import detect_full_tmpdir, scratch_folder


@contextmanager
def atomic_write(path: StoragePath) -> Iterator[Path]:
    """Write a file through a temporary one, which replaces `path` if the block succeeds and is removed if not.

    Args:
        path: the file to write; the folders above it are created.

    Yields:
        A temporary path with the same ending, which the block writes to.
    """
    if isinstance(path, Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder, detect = path.parent, detect_full_disk(path, path.parent)
    else:
        folder, detect = None, detect_full_tmpdir()
    temporary = None
    try:
        with detect:
            handle, name = tempfile.mkstemp(
                dir=folder, prefix=f".{stem_of(path)}.", suffix=f".partial{suffix_of(path)}"
            )
            os.close(handle)
            temporary = Path(name)
            yield temporary
            temporary.chmod(_mode())
            _move(temporary, path)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


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
