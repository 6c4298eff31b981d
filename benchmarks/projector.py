"""The PyTorch projector beside plastimatch: time and agreement on the same scan, views and detector.

    python benchmarks/projector.py                  # a phantom at 2 mm
    python benchmarks/projector.py CT [CT ...]      # DICOM folders, .nii.gz, .mha, ...

Each engine turns one scan in memory into line integrals of 0°, 45°, 90° and 180° at 256 × 256 pixels, whole calls
as `raylift drr --engine` makes them: plastimatch's time includes the file it reads and the process it starts. The
engines take turns, so that a busy machine slows both. Times are medians over the runs with their range. Accuracy
takes plastimatch's exact ray tracing as the reference: mean absolute difference over the mean, and the correlation
of the pixels.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from raylift.data.phantom import thorax_phantom
from raylift.drr import plastimatch, projector
from raylift.errors import BadInput
from raylift.geometry import PRESETS, Geometry, View
from raylift.thorax import find_thorax
from raylift.volumes import Volume, read_volume, stem_of

VIEWS = tuple(View(angle) for angle in (0.0, 45.0, 90.0, 180.0))
ROW = "{:<24} {:<15} {:>5}  {:<22} {:<22} {:>9} {:>8} {:>11}"


def timed(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Seconds that some work takes, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def spread(seconds: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


def compare(name: str, volume: Volume, geometry: Geometry, runs: int) -> None:
    """Print a row of the table for each view."""
    isocentre = find_thorax(volume).centre
    for view in VIEWS:
        engines: dict[str, Callable[[], np.ndarray]] = {
            "torch": lambda view=view: projector.project_volume(volume, geometry, [view], isocentre)[0],
            "plastimatch": lambda view=view: plastimatch.project_volume(volume, geometry, [view], isocentre)[0],
        }
        seconds: dict[str, list[float]] = {engine: [] for engine in engines}
        images: dict[str, np.ndarray] = {}
        for run in range(runs + 1):  # the first is not counted: it fills caches
            for engine, work in engines.items():
                took, images[engine] = timed(work)
                if run:
                    seconds[engine].append(took)
        ours, theirs = images["torch"], images["plastimatch"]
        ratio = statistics.median(seconds["plastimatch"]) / statistics.median(seconds["torch"])
        shape = "×".join(str(n) for n in volume.grid.shape)
        print(
            ROW.format(
                name[:24], shape, f"{view.angle:g}°", *(spread(seconds[engine]) for engine in engines),
                f"{ratio:.2f}×", f"{np.abs(ours - theirs).mean() / theirs.mean():.2%}",
                f"{np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]:.6f}",
            ),
            flush=True,
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", nargs="*", type=Path, help="CT scans; a phantom at 2 mm by default")
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each engine and view")
    parser.add_argument("--pixels", type=int, default=256, help="detector pixels per edge")
    parser.add_argument(
        "--threads",
        type=int,
        default=torch.get_num_threads(),
        help="threads of PyTorch; plastimatch takes OMP_NUM_THREADS, or all",
    )
    parser.add_argument("--geometry", choices=[k for k, g in PRESETS.items() if not g.parallel], default="chest-stand")
    options = parser.parse_args()
    if options.runs < 1 or options.pixels < 1 or options.threads < 1:
        parser.error("--runs, --pixels and --threads are at least 1")
    if plastimatch.program() is None:
        parser.error("plastimatch is not installed: pip install plastimatch")
    torch.set_num_threads(options.threads)
    geometry = Geometry.preset(options.geometry, options.pixels)
    try:
        scans = [(stem_of(path), read_volume(path)) for path in options.ct] or [("phantom", thorax_phantom(0, 2.0))]
    except BadInput as error:
        parser.exit(3, f"{error}\n")
    print(
        f"{platform.machine()}, {options.threads} threads, PyTorch {torch.__version__}, {options.geometry}, "
        f"{options.pixels}² pixels, {options.runs} runs; seconds per view: median (range)\n"
    )
    print(ROW.format("scan", "voxels (z×y×x)", "view", "torch", "plastimatch", "speed-up",
                     "diff", "correlation"))  # fmt: skip
    for name, volume in scans:
        compare(name, volume, geometry, options.runs)


if __name__ == "__main__":
    main()
