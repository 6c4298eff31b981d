"""Fetch the scans described in a JSON file; a program of its own, to be killed in the middle."""

import json
import sys
from pathlib import Path

from raylift.data.fetch import Scan, fetch

if __name__ == "__main__":
    scans, output, endpoint = sys.argv[1:]
    fetch([Scan(**scan) for scan in json.loads(Path(scans).read_text())], Path(output), endpoint=endpoint)
