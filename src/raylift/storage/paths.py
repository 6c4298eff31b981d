"""Files by path or by URL."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from upath import UPath

from raylift.errors import BadInput, WrongUsage

StoragePath: TypeAlias = Path | UPath  # of this machine, or of a store that fsspec knows
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
LISTINGS = 32
COMPANIONS = {".npy": (".json",), ".mhd": (".raw", ".zraw")}  # where a part of the content may stand, by the same name
# What a store says of a file that changes with its content, the first that there is.
VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created")
LONGEST = 200  # letters of a case's name; systems take 255 bytes


class Unreachable(BadInput):
    """A store cannot be read or written; it may another time."""


def storage_path(text: str | Path | UPath) -> StoragePath:
    """A path, or a URL like s3://bucket/folder or gs://bucket/folder, with the credentials of the environment.

    Raises:
        WrongUsage: the kind of store is unknown, or what reads it is not installed.
    """
    if isinstance(text, (Path, UPath)):
        return text
    kind, separator, _ = text.partition("://")
    if not separator:
        return Path(text)
    try:
        # Listings that are kept would not show what other workers wrote.
        found = UPath(text, use_listings_cache=False)
        return Path(found.path) if kind in ("file", "local") else (found.fs and found)
    except ImportError:
        raise WrongUsage(f"{text}: needs pip install 'raylift[{EXTRAS.get(kind, kind)}]'") from None
    except ValueError as error:
        raise WrongUsage(f"{text}: {error}") from None


def case_name(path: StoragePath, root: StoragePath) -> str:
    """What a file or folder below a folder is called as a case: its path, in letters that are safe everywhere."""
    return safe_name(str(path).removeprefix(str(root)).replace(os.sep, "/").strip("/") or path.absolute().name)


def safe_name(text: str) -> str:
    """A text in letters that a file's name may have everywhere, and not too many of them."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._") or "case"
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def add_case(cases: dict[str, StoragePath], name: str, path: StoragePath) -> None:
    """Add a case. Raises BadInput if another has its name."""
    if cases.setdefault(name, path) != path:
        raise BadInput(path, f"as a case it would be called {name}, as {cases[name]} is", "rename one of them")


def suffix_of(path: StoragePath) -> str:
    """The file's ending in lower case, ".nii.gz" being one."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def stem_of(path: StoragePath) -> str:
    """The file's name without its ending."""
    return path.name[: len(path.name) - len(suffix_of(path))] if suffix_of(path) else path.name


def walk(folder: StoragePath) -> Iterator[tuple[StoragePath, list[str], list[str]]]:
    """Folders, each with the names of its folders, which may be removed to leave them out, and of its files.

    Stores take a while to answer, and are asked for `LISTINGS` folders at a time.

    Raises:
        Unreachable: the folder is in a store and cannot be listed.
    """
    if isinstance(folder, Path):
        for name, folders, files in os.walk(folder):
            yield Path(name), folders, files
        return
    level = [folder]
    with ThreadPoolExecutor(LISTINGS) as pool:
        while level:
            below: list[UPath] = []
            for here, (folders, files) in zip(level, pool.map(_listed, level), strict=True):
                yield here, folders, files
                below += [here / name for name in folders]
            level = below


def _listed(folder: UPath) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in a folder of a store."""
    with reaching(folder):
        folders, files = list[str](), list[str]()
        for info in folder.fs.ls(folder.path, detail=True):
            name = PurePosixPath(info["name"].rstrip("/")).name
            if info["name"].strip("/") != folder.path.strip("/"):  # a store may list an object of the folder's name
                (folders if info["type"] == "directory" else files).append(name)
        return folders, files


def is_file(path: StoragePath) -> bool:
    """Whether it is a file rather than a folder or nothing. Raises Unreachable."""
    if isinstance(path, Path):
        return path.is_file()
    with reaching(path):
        return bool(path.fs.isfile(path.path))


def size_of(path: Path) -> int:
    """Return the size of a file of this machine in bytes.

    Raises:
        FileNotFoundError: it is not there.
        OSError: it cannot be looked at, or is no regular file.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # a pipe or a device would be waited for without end
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return found.st_size


def read_bytes(path: StoragePath, most: int) -> bytes:
    """Return the content of a file of at most so many bytes.

    Raises:
        FileNotFoundError: it is not there.
        Unreachable: the store does not answer.
        OSError: of this machine; or it is no regular file.
        ValueError: it is longer.
    """
    content: bytes | None = None
    if isinstance(path, Path):
        size = size_of(path)
        content = path.read_bytes() if size <= most else None
    else:
        with reaching(path), suppress(FileNotFoundError):
            content = bytes(path.fs.cat_file(path.path, end=most + 1))
        if content is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        size = len(content)
    if content is None or size > most:
        raise ValueError(f"longer than the {most / 2**20:.0f} MB that are read")
    return content


def stamps(source: StoragePath) -> list[tuple[str, int, str | int]]:
    """Name, size and what changes with the content, of a file or of each in a folder. Raises Unreachable."""
    if isinstance(source, Path):
        files = sorted(source.iterdir()) if source.is_dir() else parts_of(source)
        return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    with reaching(source):
        found: dict[str, Any] = {}
        for part in parts_of(source):
            found |= part.fs.find(part.path, maxdepth=1, detail=True)
        return [(PurePosixPath(n).name, info["size"], _version(source, n, info)) for n, info in sorted(found.items())]


def stamps_of(sources: Sequence[StoragePath]) -> list[list[tuple[str, int, str | int]]]:
    """Those of many, of a store some at a time. Raises Unreachable."""
    with ThreadPoolExecutor(LISTINGS) as pool:
        return list(pool.map(stamps, sources))


def _version(store: UPath, name: str, info: dict[str, Any]) -> str:
    return str(next((info[key] for key in VERSIONS if info.get(key)), None) or store.fs.ukey(name))


def parts_of(file: StoragePath) -> list[Any]:
    """A file, and those beside it where a part of its content may stand."""
    beside = COMPANIONS.get(suffix_of(file), ()) if file.suffix else ()
    return [file, *(file.with_suffix(ending) for ending in beside)]


def files_below(folder: StoragePath) -> set[str]:
    """Ways from a folder to all files in it. Raises Unreachable."""
    if isinstance(folder, Path):
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    with reaching(folder):
        start = folder.path.rstrip("/") + "/"
        return {name.removeprefix(start) for name in folder.fs.find(folder.path)}


def remove(path: StoragePath) -> None:
    """A file, or a folder with all that is in it, if it is there."""
    if not isinstance(path, Path):
        with reaching(path, "changed"):
            if path.exists():
                path.fs.rm(path.path, recursive=True)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def checksum(files: Iterable[Path]) -> str:
    """SHA-256 of the files' contents, one after another."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


@contextmanager
def reaching(store: UPath, what: str = "read") -> Iterator[None]:
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # of this machine
            raise
        problem = f"cannot be {what} ({type(error).__name__}: {error})"
        raise Unreachable(store, problem, "check the URL, the credentials and the network") from None
