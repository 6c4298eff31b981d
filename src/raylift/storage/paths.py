"""Files named by path or by URL."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from upath import UPath

from raylift.errors import BadInput, WrongUsage

StoragePath: TypeAlias = Path | UPath  # a path of this machine, or a URL of a store that fsspec supports
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}  # a URL's scheme → the extra that installs its reader
PARALLEL_REQUESTS = 32  # to a store
# A file's ending → endings of the files of the same name that may hold a part of its content.
COMPANIONS = {".npy": (".json",), ".mhd": (".raw", ".zraw")}
# Entries of a store's description of a file that change with its content; the first that exists is used.
VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created")
LONGEST = 200  # characters of a case's name; file systems allow 255 bytes


class Unreachable(BadInput):
    """Raised when a store cannot be read or written; another attempt may succeed."""


def storage_path(text: str | Path | UPath) -> StoragePath:
    """Return the path of this machine or of a store that a text names.

    Args:
        text: a path, or a URL such as s3://bucket/folder or gs://bucket/folder; the credentials come from the
            environment.

    Raises:
        WrongUsage: the kind of store is unknown, or the package that reads it is not installed.
    """
    if isinstance(text, (Path, UPath)):
        return text
    kind, separator, _ = text.partition("://")
    if not separator:
        return Path(text)
    try:
        # Cached listings would not show the files that other workers wrote.
        url = UPath(text, use_listings_cache=False)
        return Path(url.path) if kind in ("file", "local") else (url.fs and url)
    except ImportError:
        raise WrongUsage(f"{text}: needs pip install 'raylift[{EXTRAS.get(kind, kind)}]'") from None
    except ValueError as error:
        raise WrongUsage(f"{text}: {error}") from None


def case_name(path: StoragePath, root: StoragePath) -> str:
    """Return the case name of a file or folder below `root`: its relative path as a safe file name."""
    return safe_name(str(path).removeprefix(str(root)).replace(os.sep, "/").strip("/") or path.absolute().name)


def safe_name(text: str) -> str:
    """Return a text as a file name that every system accepts: ASCII, without separators, of bounded length."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._") or "case"
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def add_case(cases: dict[str, StoragePath], name: str, path: StoragePath) -> None:
    """Add a case.

    Raises:
        BadInput: another case has the same name.
    """
    if cases.setdefault(name, path) != path:
        raise BadInput(path, f"its case name would be {name}, like that of {cases[name]}", "rename one of them")


def suffix_of(path: StoragePath) -> str:
    """Return the file's ending in lower case; ".nii.gz" counts as one ending."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def stem_of(path: StoragePath) -> str:
    """Return the file's name without its ending."""
    return path.name[: len(path.name) - len(suffix_of(path))] if suffix_of(path) else path.name


def walk(
    folder: StoragePath, left_out: Callable[[Path, str], None] = lambda folder, reason: None
) -> Iterator[tuple[StoragePath, list[str], list[str]]]:
    """Walk through a folder and all folders below it, as `os.walk` does.

    Links to folders elsewhere are followed, each folder once.

    `PARALLEL_REQUESTS` folders of a store are listed at a time, as a store takes a while to answer. Raises Unreachable,
    through `_list_folder`, where a folder of a store cannot be listed.

    Args:
        folder: the folder.
        left_out: called with each folder of this machine that is left out, and the reason.

    Yields:
        A folder, the names of its folders and the names of its files. A folder whose name the caller removes from the
        list is left out.
    """
    if isinstance(folder, Path):
        yield from _walk_here(folder, left_out)
        return
    level = [folder]
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        while level:
            below: list[UPath] = []
            for current, (folders, files) in zip(level, pool.map(_list_folder, level), strict=True):
                yield current, folders, files
                below += [current / name for name in folders]
            level = below


def _walk_here(
    folder: Path, left_out: Callable[[Path, str], None]
) -> Iterator[tuple[StoragePath, list[str], list[str]]]:
    """Walk through a folder of this machine.

    Yields:
        The same as `walk`.
    """
    root = os.path.realpath(folder)
    linked = {root}

    def unreadable(error: OSError) -> None:
        left_out(Path(error.filename), f"cannot be read ({error.strerror})")

    for name, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        for below in [Path(name, below) for below in folders if os.path.islink(os.path.join(name, below))]:
            real = os.path.realpath(below)
            # A link out of the folder may lead to one above it.
            if real in linked or f"{real}/".startswith(f"{root}/") or f"{root}/".startswith(f"{real}/"):
                folders.remove(below.name)
                left_out(below, "a link to a folder that is searched anyway")
            linked.add(real)
        yield Path(name), folders, files


def _list_folder(folder: UPath) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the files in a folder of a store."""
    with store_errors(folder):
        folders, files = list[str](), list[str]()
        for info in folder.fs.ls(folder.path, detail=True):
            name = PurePosixPath(info["name"].rstrip("/")).name
            if info["name"].strip("/") != folder.path.strip("/"):  # a store may list an object of the folder's name
                (folders if info["type"] == "directory" else files).append(name)
        return folders, files


def is_file(path: StoragePath) -> bool:
    """Return whether a file, not a folder, exists at a path.

    Raises Unreachable, through `store_errors`, where a store does not answer.
    """
    if isinstance(path, Path):
        return path.is_file()
    with store_errors(path):
        return bool(path.fs.isfile(path.path))


def size_of(path: Path) -> int:
    """Return the size of a file of this machine in bytes.

    Raises:
        OSError: the file is missing (FileNotFoundError), cannot be examined, or is not a regular file.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device might never end
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return status.st_size


def read_bytes(path: StoragePath, most_bytes: int) -> bytes:
    """Read a file of at most `most_bytes` bytes.

    Raises Unreachable, through `store_errors`, where a store does not answer, and an OSError of the system where a file
    of this machine cannot be read or is not a regular file.

    Returns:
        The content.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is longer.
    """
    content: bytes | None = None
    if isinstance(path, Path):
        size = size_of(path)
        content = path.read_bytes() if size <= most_bytes else None
    else:
        with store_errors(path), suppress(FileNotFoundError):
            content = bytes(path.fs.cat_file(path.path, end=most_bytes + 1))
        if content is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        size = len(content)
    if content is None or size > most_bytes:
        raise ValueError(f"longer than the {most_bytes / 2**20:.0f} MB that are allowed")
    return content


def stamps(source: StoragePath) -> list[tuple[str, int, str | int]]:
    """Return name, size and version of a file, or of each file in a folder; they change when the content does.

    The version is the time of the last change or, in a store, its checksum if there is one. Raises Unreachable, through
    `store_errors`, where a store does not answer.
    """
    if isinstance(source, Path):
        files = sorted(source.iterdir()) if source.is_dir() else parts_of(source)
        return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    with store_errors(source):
        infos: dict[str, Any] = {}
        for part in parts_of(source):
            infos |= part.fs.find(part.path, maxdepth=1, detail=True)
        return [(PurePosixPath(n).name, info["size"], _version(source, n, info)) for n, info in sorted(infos.items())]


def stamps_of(sources: Sequence[StoragePath]) -> list[list[tuple[str, int, str | int]]]:
    """Return the `stamps` of each source; `PARALLEL_REQUESTS` of them are examined at a time. Raises Unreachable."""
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        return list(pool.map(stamps, sources))


def _version(store: UPath, name: str, info: dict[str, Any]) -> str:
    return str(next((info[key] for key in VERSIONS if info.get(key)), None) or store.fs.ukey(name))


def parts_of(file: StoragePath) -> list[Any]:
    """Return a file and the paths of the files beside it that may hold a part of its content."""
    beside = COMPANIONS.get(suffix_of(file), ()) if file.suffix else ()
    return [file, *(file.with_suffix(ending) for ending in beside)]


def files_below(folder: StoragePath) -> set[str]:
    """Return the paths, relative to a folder, of all files in it and in the folders below.

    Raises Unreachable, through `store_errors`, where a store does not answer.
    """
    if isinstance(folder, Path):
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    with store_errors(folder):
        start = folder.path.rstrip("/") + "/"
        return {name.removeprefix(start) for name in folder.fs.find(folder.path)}


def remove(path: StoragePath) -> None:
    """Remove a file, or a folder with its content; a path that does not exist is ignored.

    Raises Unreachable, through `store_errors`, where a store does not answer.
    """
    if not isinstance(path, Path):
        with store_errors(path, "changed"):
            if path.exists():
                path.fs.rm(path.path, recursive=True)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def checksum(files: Iterable[Path]) -> str:
    """Return the SHA-256 in hexadecimal of the concatenated contents of files."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


@contextmanager
def store_errors(store: UPath, action: str = "read") -> Iterator[None]:
    """Raise Unreachable in place of the error of a block that uses a store.

    Args:
        store: the URL that the error names.
        action: the participle that says what failed, such as "written".

    Yields:
        Nothing.

    Raises:
        Unreachable: the block failed.
        BadInput: the block raised it; it passes through, as does the error of a full disk of this machine.
    """
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # the disk of this machine is full
            raise
        problem = f"cannot be {action} ({type(error).__name__}: {error})"
        raise Unreachable(store, problem, "check the URL, the credentials and the network") from None
