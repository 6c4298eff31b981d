"""Limits on the process that reads uploads: the files that it can open, and the resources that it can use.

Landlock (https://docs.kernel.org/userspace-api/landlock.html) denies the process all files except those named here,
from Linux 5.13 on, and the network, from Linux 6.7 on. On other systems only the limits on memory, file sizes and
processor time apply.
"""

from __future__ import annotations

import ctypes
import os
import sys
import sysconfig
from pathlib import Path

MAX_MEMORY = 6 * 2**30  # bytes of address space
MAX_CPU_SECONDS = 60
MAX_FILE_BYTES = 512 * 2**20  # of a file that the process writes

# System calls and flags from Linux's landlock.h; the numbers are the same on all processors.
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION = 1  # flag that asks for the newest version that the system supports
_BENEATH = 1  # kind of rule: a path and everything below it
_NO_NEW_PRIVILEGES = 38  # option of prctl
_READ = 0b1101  # rights to execute, to read a file and to list a folder
# All rights, by the first version that has them.
_ALL = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_FILE_RIGHTS = 0b1100_0000_0000_0111  # rights that apply to a file; the others apply to folders only
_NETWORK = 0b11  # bind and connect
_SCOPES = 0b11  # abstract sockets of other processes, and signals to them


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("rights", ctypes.c_uint64), ("folder", ctypes.c_int32))


def confine(folder: Path) -> bool:
    """Restrict this process for good: it may read and write in one folder, and read Python's libraries.

    Args:
        folder: the folder in which everything is allowed.

    Returns:
        Whether the system denies all other files; the limits on resources apply in any case.
    """
    _limit_resources()
    version = _landlock(_CREATE, None, 0, _VERSION)
    if version < 1:
        return False
    everything = max(rights for since, rights in _ALL.items() if since <= version)
    rules = _Ruleset(everything, _NETWORK if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _landlock(_CREATE, ctypes.byref(rules), size, 0)
    if ruleset < 0:
        return False
    for path in _python_paths():
        _allow(ruleset, path, _READ)
    _allow(ruleset, folder, everything)
    for device in ("/dev/null", "/dev/zero", "/dev/urandom"):
        _allow(ruleset, Path(device), everything)
    ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    restricted = _landlock(_RESTRICT, ruleset, 0) == 0
    os.close(ruleset)
    return restricted


def _limit_resources() -> None:
    if sys.platform == "win32":
        return
    import resource

    for kind, wanted in (
        (resource.RLIMIT_AS, MAX_MEMORY),
        (resource.RLIMIT_CPU, MAX_CPU_SECONDS),
        (resource.RLIMIT_FSIZE, MAX_FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (limit, limit))


def _python_paths() -> set[Path]:
    """Return the folders of Python, of its libraries and of this program, and the system's files on processors."""
    paths = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "platlib", "purelib")}
    program = {Path(sys.base_prefix) / "lib", Path(__file__).parents[1]}
    system = ("/usr/lib", "/usr/local/lib", "/lib", "/lib64", "/etc/ld.so.cache", "/sys/devices/system/cpu")
    return paths | program | {Path(path) for path in system} | {Path("/proc/cpuinfo")}


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # a path that does not exist needs no permission
    try:
        if not path.is_dir():
            rights &= _FILE_RIGHTS
        _landlock(_ADD, ruleset, _BENEATH, ctypes.byref(_Beneath(rights, handle)), 0)
    finally:
        os.close(handle)


def _landlock(call: int, *arguments: object) -> int:
    """Make a system call of Landlock.

    Returns:
        The system's answer; negative where it does not know the call, or refuses it.
    """
    if not sys.platform.startswith("linux"):
        return -1
    library = ctypes.CDLL(None, use_errno=True)
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return int(library.syscall(ctypes.c_long(call), *converted))
