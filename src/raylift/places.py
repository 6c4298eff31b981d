"""Files by path or by URL: brought to where they are worked on, and written as a whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from filelock import FileLock, Timeout
from upath import UPath

from raylift.errors import BadInput, DiskFull, WrongUsage

Place: TypeAlias = Path | UPath  # of this machine, or of a store that fsspec knows
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
LISTINGS = 32
SCRATCH = "raylift-scratch-"
COMPANIONS = {".npy": (".json",), ".mhd": (".raw", ".zraw")}  # where a part of the content may stand, by the same name
# What a store says of a file that changes with its content, the first that there is.
VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created")
FULL = (errno.ENOSPC, errno.EDQUOT)  # as the system says that a disk is full
TRIAL = 2**16  # bytes that a disk which is not full takes
LONGEST = 200  # letters of a case's name; systems take 255 bytes


class Unreachable(BadInput):
    """A store cannot be read or written; it may another time."""


def place(text: str | Path | UPath) -> Place:
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


def case_name(path: Place, root: Place) -> str:
    """What a file or folder below a folder is called as a case: its path, in letters that are safe everywhere."""
    return safe_name(str(path).removeprefix(str(root)).replace(os.sep, "/").strip("/") or path.absolute().name)


def safe_name(text: str) -> str:
    """A text in letters that a file's name may have everywhere, and not too many of them."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._") or "case"
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def add_case(cases: dict[str, Place], name: str, path: Place) -> None:
    """Add a case. Raises BadInput if another has its name."""
    if cases.setdefault(name, path) != path:
        raise BadInput(path, f"as a case it would be called {name}, as {cases[name]} is", "rename one of them")


def suffix_of(path: Place) -> str:
    """The file's ending in lower case, ".nii.gz" being one."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def stem_of(path: Place) -> str:
    """The file's name without its ending."""
    return path.name[: len(path.name) - len(suffix_of(path))] if suffix_of(path) else path.name


def walk(folder: Place) -> Iterator[tuple[Place, list[str], list[str]]]:
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
    with _reaching(folder):
        folders, files = list[str](), list[str]()
        for info in folder.fs.ls(folder.path, detail=True):
            name = PurePosixPath(info["name"].rstrip("/")).name
            if info["name"].strip("/") != folder.path.strip("/"):  # a store may list an object of the folder's name
                (folders if info["type"] == "directory" else files).append(name)
        return folders, files


def is_file(path: Place) -> bool:
    """Whether it is a file rather than a folder or nothing. Raises Unreachable."""
    if isinstance(path, Path):
        return path.is_file()
    with _reaching(path):
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


def read_bytes(path: Place, most: int) -> bytes:
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
        with _reaching(path), suppress(FileNotFoundError):
            content = bytes(path.fs.cat_file(path.path, end=most + 1))
        if content is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        size = len(content)
    if content is None or size > most:
        raise ValueError(f"longer than the {most / 2**20:.0f} MB that are read")
    return content


def stamps(source: Place) -> list[tuple[str, int, str | int]]:
    """Name, size and what changes with the content, of a file or of each in a folder. Raises Unreachable."""
    if isinstance(source, Path):
        files = sorted(source.iterdir()) if source.is_dir() else _parts(source)
        return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    with _reaching(source):
        found: dict[str, Any] = {}
        for part in _parts(source):
            found |= part.fs.find(part.path, maxdepth=1, detail=True)
        return [(PurePosixPath(n).name, info["size"], _version(source, n, info)) for n, info in sorted(found.items())]


def stamps_of(sources: Sequence[Place]) -> list[list[tuple[str, int, str | int]]]:
    """Those of many, of a store some at a time. Raises Unreachable."""
    with ThreadPoolExecutor(LISTINGS) as pool:
        return list(pool.map(stamps, sources))


def _version(store: UPath, name: str, info: dict[str, Any]) -> str:
    return str(next((info[key] for key in VERSIONS if info.get(key)), None) or store.fs.ukey(name))


def _parts(file: Place) -> list[Any]:
    """A file, and those beside it where a part of its content may stand."""
    beside = COMPANIONS.get(suffix_of(file), ()) if file.suffix else ()
    return [file, *(file.with_suffix(ending) for ending in beside)]


@contextmanager
def local_copy(source: Place) -> Iterator[Path]:
    """The file or folder on this machine: itself, or a copy for as long as the block lasts.

    Raises:
        Unreachable: it cannot be copied.
        BadInput: as the block raises it, with the source for its copy.
    """
    if isinstance(source, Path):
        yield source
        return
    with _scratch() as folder:
        copy = folder / source.name
        with _reaching(source):
            if source.fs.isdir(source.path):
                copy.mkdir()
                names = source.fs.find(source.path, maxdepth=1)
                source.fs.get(names, [str(copy / Path(name).name) for name in names])
            else:
                first, *beside = _parts(source)
                parts = [first, *(part for part in beside if part.exists())]
                source.fs.get([part.path for part in parts], [str(copy.with_name(part.name)) for part in parts])
        try:
            yield copy
        except BadInput as error:
            raise BadInput(*(str(part).replace(str(copy), str(source)) for part in error.args)) from None


def kept_copy(source: Place) -> Path:
    """A file on this machine: itself, or a copy that is kept in the cache folder until it changes.

    The folder is RAYLIFT_CACHE, or raylift in XDG_CACHE_HOME. Raises Unreachable where it cannot be copied.
    """
    if isinstance(source, Path):
        return source
    home = os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")
    cache = Path(os.environ.get("RAYLIFT_CACHE", Path(home) / "raylift"))
    with _reaching(source):
        key = hashlib.sha256(f"{source} {source.fs.ukey(source.path)}".encode()).hexdigest()
        copy = cache / key / source.name
        if not copy.exists():
            with replacing(copy) as temporary:
                source.fs.get(source.path, str(temporary))
    return copy


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
def replacing(path: Place) -> Iterator[Path]:
    """A temporary path of the same ending that takes `path`'s place when the block ends well, else vanishes."""
    ending, stem = suffix_of(path), stem_of(path)
    folder = None
    if isinstance(path, Path):
        folder = path.parent
        folder.mkdir(parents=True, exist_ok=True)
    with told_when_full(path, folder or Path(tempfile.gettempdir())):
        handle, name = tempfile.mkstemp(dir=folder, prefix=f".{stem}.", suffix=f".partial{ending}")
    os.close(handle)
    temporary = Path(name)
    try:
        with told_when_full(path, temporary.parent):
            yield temporary
            temporary.chmod(_mode())
            _move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def told_when_full(path: Place, folder: Path) -> Iterator[None]:
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
def replacing_together(folder: Place) -> Iterator[Path]:
    """A temporary folder whose files go to `folder`, in place of those of the same names, when the block ends well.

    A folder that is made for them is gone again where it does not. Raises Unreachable of a store.
    """
    if not isinstance(folder, Path):
        with _scratch() as written:
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
            told_when_full(folder, folder),
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


def write_json(data: object, path: Place) -> None:
    """Write indented JSON, as a whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(data, indent=2) + "\n")


def files_below(folder: Place) -> set[str]:
    """Ways from a folder to all files in it. Raises Unreachable."""
    if isinstance(folder, Path):
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    with _reaching(folder):
        start = folder.path.rstrip("/") + "/"
        return {name.removeprefix(start) for name in folder.fs.find(folder.path)}


def remove(path: Place) -> None:
    """A file, or a folder with all that is in it, if it is there."""
    if not isinstance(path, Path):
        with _reaching(path, "changed"):
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
def _scratch() -> Iterator[Path]:
    """A temporary folder. Those that killed processes left are removed: a scan in each would fill the disk."""
    for lock in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*/.lock"):
        with suppress(OSError, Timeout), FileLock(lock, timeout=0):
            shutil.rmtree(lock.parent)
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as name, FileLock(Path(name) / ".lock"):
        (Path(name) / "files").mkdir()
        yield Path(name) / "files"


def _move(file: Path, path: Place) -> None:
    """A file of this machine to a place, whole at once."""
    if isinstance(path, Path):
        os.replace(file, path)
    else:
        with _reaching(path, "written"):
            path.fs.put(str(file), path.path)  # an object is there when all of it is


@contextmanager
def _reaching(store: UPath, what: str = "read") -> Iterator[None]:
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # of this machine
            raise
        problem = f"cannot be {what} ({type(error).__name__}: {error})"
        raise Unreachable(store, problem, "check the URL, the credentials and the network") from None
