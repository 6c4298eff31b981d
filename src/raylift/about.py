"""Raylift's version, the state of its code, and the notice that it is not a medical device."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

__version__ = "0.1.0"

NOT_MEDICAL = "Raylift is research software, not a medical device; its volumes are not for diagnosis or treatment."


@lru_cache(1)
def code_version() -> str:
    """Return the version; in a Git checkout with its commit, like 0.1.0+g7b668db53c3f, and a digest of any changes."""
    import hashlib  # slow to import, as is subprocess
    import subprocess

    try:
        _git("ls-files", "--error-unmatch", __file__)
        commit, changes = _git("rev-parse", "--short=12", "HEAD"), _git("diff", "HEAD", "--", ".")
    except (OSError, subprocess.CalledProcessError):
        return __version__
    changed = f".{hashlib.sha256(changes).hexdigest()[:8]}" if changes else ""
    return f"{__version__}+g{commit.decode().strip()}{changed}"


def _git(*arguments: str) -> bytes:
    import subprocess

    here = str(Path(__file__).parent)
    command = ["git", "-C", here, *arguments]
    return subprocess.run(command, capture_output=True, check=True).stdout  # noqa: S603 - no shell; constant arguments
