"""Our projector beside plastimatch: time and agreement, for whole scans as `raylift drr` projects them and for the
sizes that training projects.

    python benchmarks/projector.py                  # a phantom of 300 × 512 × 512 voxels, eight views of 512²
    python benchmarks/projector.py CT [CT ...]      # DICOM folders, .nii.gz, .mha, ...

Times are seconds a view. "call" is a whole call as `raylift drr` makes it: ours turns Hounsfield units into
attenuation and sets up rays, plastimatch writes and reads a file and starts a process. "projection" leaves that out:
ours is the projector's time with the scan in memory, plastimatch's what it prints as its total without input and
output. The engines take turns, so that a busy machine slows both; times are medians over the runs with their range.
Accuracy takes plastimatch's exact ray tracing as the reference: mean absolute difference over the mean, and the
correlation of the pixels.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from raylift.data.phantom import thorax_phantom
from raylift.data.thorax import find_thorax
from raylift.drr import ProjectionOperator, plastimatch, projector
from raylift.errors import BadInput
from raylift.geometry import PRESETS, Geometry, View, VolumeGrid
from raylift.images.hounsfield import hu_to_mu
from raylift.images.volume import Volume
from raylift.io.volumes import read_volume
from raylift.storage.paths import stem_of

ROW = "{:<16} {:<12} {:>5} {:>5}  {:<20} {:<20} {:>6}  {:<20} {:<20} {:>6}  {:>6} {:>9}"
HEAD = ("scan", "z×y×x", "views", "edge", "call: ours", "plastimatch", "ratio", "projection: ours", "plastimatch",
        "ratio", "diff", "corr.")  # fmt: skip
PHANTOM = (300, 512, 512), 0.9  # voxels, mm
# Voxels, mm, pixels, views: what recipes/cpu.yaml projects of a warped scan and in its objective, then other sizes.
TRAINING = [
    ((110, 100, 120), 4.0, 128, 2), ((64, 64, 64), 5.0, 128, 2), ((64, 64, 64), 5.0, 64, 8),
    ((96, 96, 96), 3.33, 96, 4), ((128, 128, 128), 2.5, 128, 2), ((128, 128, 128), 2.5, 128, 8),
]  # fmt: skip


def timed(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Seconds that some work takes, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def by_its_own_clock(work: Callable[[], np.ndarray]) -> tuple[float, float, np.ndarray]:
    """Seconds that plastimatch takes for a whole call, and for projecting by its own account; and the images."""
    run, said = subprocess.run, []

    def heard(*args: Any, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        done = run(*args, **kwargs)
        said.append(done.stdout)
        return done

    with mock.patch.object(plastimatch.subprocess, "run", heard):
        whole, images = timed(work)
    total, files = (
        sum(float(seconds) for text in said for seconds in re.findall(f"{name} time: ([0-9.e-]+)", text))
        for name in ("Total", "I/O")
    )
    assert total > 0, "plastimatch says its times in other words"
    return whole, total - files, images


def spread(seconds: Sequence[float]) -> str:
    """Median and range."""
    return f"{statistics.median(seconds):.3f} ({min(seconds):.3f}–{max(seconds):.3f})"


def compare(name: str, volume: Volume, pixels: int, preset: str, count: int, runs: int) -> None:
    """Print a row of the table."""
    geometry, isocentre = Geometry.preset(preset, pixels), find_thorax(volume).centre
    views = [View(360.0 * k / count if count > 2 else 90.0 * k) for k in range(count)]
    inner = ProjectionOperator(volume.grid, geometry.cameras(views, isocentre))
    mu = torch.from_numpy(hu_to_mu(volume.array.astype(np.float32)))[None]
    times: dict[str, list[float]] = {key: [] for key in ("ours", "plastimatch", "our projection", "its projection")}
    for run in range(runs + 1):  # the first is not counted: it fills caches
        whole, ours = timed(lambda: projector.project_volume(volume, geometry, views, isocentre))
        projection, _ = timed(lambda: inner(mu).numpy())
        its, by_itself, theirs = by_its_own_clock(
            lambda: plastimatch.project_volume(volume, geometry, views, isocentre)
        )
        if run:
            for key, seconds in zip(times, (whole, its, projection, by_itself), strict=True):
                times[key].append(seconds / count)
    middle = {key: statistics.median(seconds) for key, seconds in times.items()}
    print(
        ROW.format(
            name[:16], "×".join(str(n) for n in volume.grid.shape), count, pixels,
            spread(times["ours"]), spread(times["plastimatch"]), f"{middle['plastimatch'] / middle['ours']:.1f}×",
            spread(times["our projection"]), spread(times["its projection"]),
            f"{middle['its projection'] / middle['our projection']:.1f}×",
            f"{np.abs(ours - theirs).mean() / theirs.mean():.2%}",
            f"{np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]:.6f}",
        ),
        flush=True,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", nargs="*", type=Path, help="CT scans; a phantom by default")
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each engine")
    parser.add_argument("--pixels", type=int, default=512, help="detector pixels per edge, for whole scans")
    parser.add_argument("--views", type=int, default=8, help="views of whole scans")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of both engines")
    parser.add_argument("--geometry", choices=[k for k, g in PRESETS.items() if not g.parallel], default="chest-stand")
    options = parser.parse_args()
    if min(options.runs, options.pixels, options.threads, options.views) < 1:
        parser.error("--runs, --pixels, --views and --threads are at least 1")
    if plastimatch.program() is None:
        parser.error("plastimatch is not installed: pip install plastimatch")
    torch.set_num_threads(options.threads)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # plastimatch's
    try:
        scans = [(stem_of(path), read_volume(path)) for path in options.ct]
    except BadInput as error:
        parser.exit(3, f"{error}\n")
    phantom = thorax_phantom(0, 2.0)
    if not scans:
        scans = [("phantom", phantom.resample(VolumeGrid.box(phantom.grid.centre, *PHANTOM)))]
    print(f"{platform.machine()}, {options.threads} threads, PyTorch {torch.__version__}, {options.geometry}, "
          f"{options.runs} runs; seconds a view: median (range)\n")  # fmt: skip
    print(ROW.format(*HEAD))
    for name, volume in scans:
        compare(name, volume, options.pixels, options.geometry, options.views, options.runs)
    for shape, spacing, pixels, views in TRAINING:
        grid = VolumeGrid.box(find_thorax(phantom).centre, shape, spacing)
        compare("training", phantom.resample(grid), pixels, options.geometry, views, options.runs)


if __name__ == "__main__":
    main()
