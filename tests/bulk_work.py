"""What workers do in tests of the engines; an importable module, as spawned processes need it."""

import os
import signal
import time
from pathlib import Path


def double(number: int) -> int:
    return 2 * number


def pid(_: object) -> int:
    return os.getpid()


def die_once(mark: Path) -> str:
    """The first who comes dies."""
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return "done"
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


def die_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def hang_at_three(number: int) -> int:
    if number == 3:
        time.sleep(60)
    return number


def fail_at_three(number: int) -> int:
    if number == 3:
        raise OSError(28, "No space left on device")
    return number
