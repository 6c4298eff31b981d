"""Memory of a worker that prepares scans: for one of 512 × 512 × 600 voxels, and after some and many small ones.

python benchmarks/memory.py --scans 300

Each row is a process of its own; scans are phantoms.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from raylift.cli.console import print_table
from raylift.data.phantom import thorax_phantom
from raylift.data.preparation import PreparationSettings, prepare_case
from raylift.geometry import VolumeGrid
from raylift.io.volumes import write_volume
from raylift.parallel.executors import one_thread

LARGE = (600, 512, 512)
CHECKED = 10  # after so many small scans memory is taken for settled


def peak() -> float:
    """The most memory in MB that this process has held; what `getrusage` says begins with its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def one_large(folder: Path) -> list[dict[str, str]]:
    """A scan of `LARGE` voxels."""
    begun, before = time.perf_counter(), peak()
    record = prepare_case(folder / "large.nii.gz", folder / "case", PreparationSettings())
    assert record["status"] == "ok", record["reason"]
    return [
        {
            "scans": " × ".join(map(str, LARGE[::-1])),
            "before": f"{before:.0f} MB",
            "at most": f"{peak():.0f} MB",
            "seconds each": f"{time.perf_counter() - begun:.1f}",
        }
    ]


def many_small(folder: Path, count: int) -> list[dict[str, str]]:
    """The same small scan again and again."""
    rows, begun, before = [], time.perf_counter(), peak()
    for number in range(1, count + 1):
        record = prepare_case(folder / "small.nii.gz", folder / f"case-{number}", PreparationSettings(32))
        assert record["status"] == "ok", record["reason"]
        if number in (CHECKED, count):
            seconds = (time.perf_counter() - begun) / number
            rows.append(
                {
                    "scans": f"{number} of 5 mm",
                    "before": f"{before:.0f} MB",
                    "at most": f"{peak():.0f} MB",
                    "seconds each": f"{seconds:.1f}",
                }
            )
    return rows


def write_large(path: Path) -> None:
    """A phantom of `LARGE` voxels."""
    phantom = thorax_phantom(0)
    spacing = tuple(
        s * n / m for s, n, m in zip(phantom.grid.spacing, phantom.grid.shape[::-1], LARGE[::-1], strict=True)
    )
    grid = VolumeGrid(LARGE, spacing, phantom.grid.origin)  # type: ignore[arg-type]
    write_volume(phantom.resample(grid), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=300)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_large(folder / "large.nii.gz")
        write_volume(thorax_phantom(0, 5.0), folder / "small.nii.gz")
        for work, arguments in ((one_large, ()), (many_small, (options.scans,))):
            with ProcessPoolExecutor(1, get_context("spawn"), one_thread) as pool:
                rows += pool.submit(work, folder, *arguments).result()
    print_table(rows)


if __name__ == "__main__":
    main()
