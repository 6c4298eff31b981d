"""Bounds on the process that reads uploads: what it can see, and how much it can take.

On Linux 5.13 or newer Landlock (https://docs.kernel.org/userspace-api/landlock.html) closes all files to the process
but those named, and from Linux 6.7 on the network. Elsewhere only the limits on memory, files and processor time hold.
"""

from __future__ import annotations

import ctypes
import os
import sys
import sysconfig
from pathlib import Path

MEMORY = 6 * 2**30  # bytes of address space
SECONDS = 60  # of processor time
LARGEST_FILE = 512 * 2**20  # bytes, of a file that it writes

# System calls and flags of Linux's landlock.h; the numbers are the same on all processors.
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION = 1  # flag that asks for the newest version known
_BENEATH = 1  # kind of rule
_NO_NEW_PRIVILEGES = 38  # option of prctl
_READ = 0b1101  # execute, read a file, list a folder
_ALL = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}  # rights, by the version they came with
_FILE_RIGHTS = 0b1100_0000_0000_0111  # those that a file, rather than a folder, can have
_NETWORK = 0b11  # bind and connect
_SCOPES = 0b11  # abstract sockets and signals of others


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("rights", ctypes.c_uint64), ("folder", ctypes.c_int32))


def confine(folder: Path) -> bool:
    """Bound this process for good: it reads and writes below one folder, and reads Python's libraries besides.

    Args:
        folder: that it may do everything in.

    Returns:
        Whether the system closes all other files to it; the limits hold in any case.
    """
    _limit()
    version = _landlock(_CREATE, None, 0, _VERSION)
    if version < 1:
        return False
    everything = max(rights for since, rights in _ALL.items() if since <= version)
    rules = _Ruleset(everything, _NETWORK if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _landlock(_CREATE, ctypes.byref(rules), size, 0)
    if ruleset < 0:
        return False
    for path in _python():
        _allow(ruleset, path, _READ)
    _allow(ruleset, folder, everything)
    for device in ("/dev/null", "/dev/zero", "/dev/urandom"):
        _allow(ruleset, Path(device), everything)
    ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    done = _landlock(_RESTRICT, ruleset, 0) == 0
    os.close(ruleset)
    return done


def _limit() -> None:
    if sys.platform == "win32":
        return
    import resource

    for kind, most in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CPU, SECONDS),
        (resource.RLIMIT_FSIZE, LARGEST_FILE),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (least, least))


def _python() -> set[Path]:
    """Return where Python, its libraries and this program lie, and what tells of the processors."""
    paths = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "platlib", "purelib")}
    program = {Path(sys.base_prefix) / "lib", Path(__file__).parents[1]}
    system = ("/usr/lib", "/usr/local/lib", "/lib", "/lib64", "/etc/ld.so.cache", "/sys/devices/system/cpu")
    return paths | program | {Path(path) for path in system} | {Path("/proc/cpuinfo")}


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no permission
    try:
        if not path.is_dir():
            rights &= _FILE_RIGHTS
        _landlock(_ADD, ruleset, _BENEATH, ctypes.byref(_Beneath(rights, handle)), 0)
    finally:
        os.close(handle)


def _landlock(call: int, *arguments: object) -> int:
    """Make a system call; negative where the system does not know it, or refuses."""
    if not sys.platform.startswith("linux"):
        return -1
    library = ctypes.CDLL(None, use_errno=True)
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return int(library.syscall(ctypes.c_long(call), *converted))
