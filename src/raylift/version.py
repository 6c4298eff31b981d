"""Which code made a result."""

from __future__ import annotations

import subprocess
from functools import lru_cache
from pathlib import Path

from raylift._version import __version__


@lru_cache(1)
def code_version() -> str:
    """The version, and in a checkout its commit, like 0.1.0+g7b668db, with .changed where files differ from it."""
    here = Path(__file__).parent
    git = ["git", "-C", str(here), "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=.changed"]
    try:
        tracked = subprocess.run([*git[:3], "ls-files", "--error-unmatch", __file__], capture_output=True)
        found = subprocess.run(git, capture_output=True, text=True)
    except OSError:
        return __version__
    if tracked.returncode or found.returncode:
        return __version__
    return f"{__version__}+g{found.stdout.strip()}"
