"""Where the repository is, and real scans and radiographs beside it where there are any."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
