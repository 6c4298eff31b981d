"""Copy files of a store to this machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raylift.errors import BadInput
from raylift.storage.atomic import atomic_write
from raylift.storage.paths import StoragePath, parts_of, store_errors
from raylift.storage.scratch import scratch_folder


@contextmanager
def local_copy(source: StoragePath) -> Iterator[Path]:
    """Copy a file or folder of a store to this machine for as long as the block lasts.

    Raises Unreachable, through `store_errors`, where the source cannot be copied.

    Args:
        source: a path of this machine, which is not copied, or a URL.

    Yields:
        The path on this machine.

    Raises:
        BadInput: the block raised it; the message names the source, not its copy.
    """
    if isinstance(source, Path):
        yield source
        return
    with scratch_folder() as folder:
        copy = folder / source.name
        with store_errors(source):
            if source.fs.isdir(source.path):
                copy.mkdir()
                names = source.fs.find(source.path, maxdepth=1)
                source.fs.get(names, [str(copy / Path(name).name) for name in names])
            else:
                first, *beside = parts_of(source)
                parts = [first, *(part for part in beside if part.exists())]
                source.fs.get([part.path for part in parts], [str(copy.with_name(part.name)) for part in parts])
        try:
            yield copy
        except BadInput as error:
            raise BadInput(*(str(part).replace(str(copy), str(source)) for part in error.args)) from None


def cached_copy(source: StoragePath) -> Path:
    """Copy a file of a store to the cache folder, unless the copy is there and the file has not changed since.

    The cache folder is RAYLIFT_CACHE, or raylift in XDG_CACHE_HOME. Raises Unreachable, through `store_errors`, where
    the file cannot be copied.

    Args:
        source: a path of this machine, which is not copied, or a URL.

    Returns:
        The path on this machine.
    """
    if isinstance(source, Path):
        return source
    home = os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")
    cache = Path(os.environ.get("RAYLIFT_CACHE", Path(home) / "raylift"))
    with store_errors(source):
        key = hashlib.sha256(f"{source} {source.fs.ukey(source.path)}".encode()).hexdigest()
        copy = cache / key / source.name
        if not copy.exists():
            with atomic_write(copy) as temporary:
                source.fs.get(source.path, str(temporary))
    return copy
