"""`raylift` with a death in it: python killed_run.py MOMENT COUNT train RECIPE ...

SIGKILL comes at the COUNT-th time that a checkpoint reaches MOMENT: `half-written` (its file has half of its bytes)
or `atomic_write` (a finished file, or else the index, is about to take its name).
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from raylift.cli import main
from raylift.training import checkpoint

sys.path.append(str(Path(__file__).parents[1]))  # of the tiny network
moment, count = sys.argv[1], int(sys.argv[2])
calls = 0


def die_at_last() -> None:
    global calls
    calls += 1
    if calls == count:
        os.kill(os.getpid(), signal.SIGKILL)


class DeadlyOs:
    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def replace(self, source: Path, target: Path) -> None:
        die_at_last()
        os.replace(source, target)


def save_half(tensors: Any, path: Path, metadata: Any, write: Any = checkpoint.save_file) -> None:
    write(tensors, path, metadata=metadata)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    die_at_last()
    path.write_bytes(content)


if moment == "half-written":
    checkpoint.save_file = save_half
else:
    checkpoint.os = DeadlyOs()
sys.argv[:3] = ["raylift"]
main()
