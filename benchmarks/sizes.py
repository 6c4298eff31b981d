"""Time and memory of a training step and of a reconstruction, by size of the volume and number of views.

    python benchmarks/sizes.py                       # 64³ to 128³, the networks of recipes/cpu.yaml and paper.yaml
    python benchmarks/sizes.py --plot sizes.png      # and a chart
    python benchmarks/sizes.py --voxels 128 --networks 48,7

A training step is lift, network in bfloat16, L1 and AdamW on one volume; a reconstruction is lift and network in
float32. Each is measured in a process of its own, whose peak memory it is, all of it; times are medians after a first
run that compiles. "nan" is a process that died for want of memory. With --checkpointing the step of each network is
measured twice: the transformer keeping its activations, and computing them again.
"""

from __future__ import annotations

import argparse
import itertools
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch

from raylift.geometry import Geometry, View
from raylift.model.lifted_network import LiftedNetwork

GIB = 2**30
ROW = "{:<10} {:<8} {:>6} {:>6} {:>14} {:>14} {:>14} {:>14}"
RUNS = 3


def measure(kind: str, network: tuple[int, int], voxels: int, views: int, checkpointing: bool) -> tuple[float, float]:
    """Median seconds, and GiB of this process's peak, of a "step" or a "reconstruction"."""
    torch.manual_seed(0)
    feature_size, window = network
    lifted_network = LiftedNetwork(
        network="swin_unetr", feature_size=feature_size, window_size=window, checkpointing=checkpointing,
        lift="backproject", geometry=Geometry.preset("chest-stand", 2 * voxels),
        views=[View(360 * k / views if views > 2 else 90 * k) for k in range(views)], voxels=voxels, cube_mm=320,
    )  # fmt: skip
    xrays, truth = torch.rand(1, views, 2 * voxels, 2 * voxels), torch.rand(1, 1, *[voxels] * 3)
    optimizer = torch.optim.AdamW(lifted_network.parameters())

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            made = lifted_network(xrays)
        (made.float() - truth).abs().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    def reconstruction() -> None:
        with torch.inference_mode():
            lifted_network(xrays)

    work: Callable[[], None] = step if kind == "step" else reconstruction
    seconds = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:]), _peak() / GIB


def alone(*given: Any) -> tuple[float, float]:
    """`measure` in a process of its own; NaN where that dies for want of memory."""
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(measure, *given).result()
    except BrokenProcessPool:
        return math.nan, math.nan


def _peak() -> int:
    """This process's peak in bytes on Linux; `getrusage` begins with that of the parent."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def plot(rows: list[tuple[str, int, int, float, float]], path: Path) -> None:
    """Seconds and GiB of a step against the edge of the volume."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for title in dict.fromkeys((row[0], row[2]) for row in rows):
        mine = [row for row in rows if (row[0], row[2]) == title]
        label = f"{title[0]}, {title[1]} views"
        for axis, value in zip(axes, (3, 4), strict=True):
            axis.plot([row[1] for row in mine], [row[value] for row in mine], "o-", label=label)
    for axis, label in zip(axes, ("seconds a training step", "peak memory of the process (GiB)"), strict=True):
        axis.set(xlabel="voxels along an edge", ylabel=label, yscale="log")
        axis.set_xticks(sorted({row[1] for row in rows}))
        axis.grid(alpha=0.3)
    axes[1].axhline(16, color="grey", linestyle="--", linewidth=1)
    axes[1].annotate("16 GiB", (0.02, 16), xycoords=("axes fraction", "data"), va="bottom", fontsize=8, color="grey")
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["12,4", "48,7"], help="feature size and window")
    parser.add_argument("--voxels", nargs="+", type=int, default=[64, 96, 128])
    parser.add_argument("--views", nargs="+", type=int, default=[2, 8])
    parser.add_argument("--checkpointing", action="store_true", help="measure steps that compute activations again too")
    parser.add_argument("--plot", type=Path, help="write a chart of the steps")
    options = parser.parse_args()
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print(ROW.format("network", "voxels", "views", "again", "step (s)", "(GiB)", "reconstr. (s)", "(GiB)"))
    rows = []
    for name, views, voxels in itertools.product(options.networks, options.views, options.voxels):
        feature_size, window = (int(part) for part in name.split(","))
        for again in (False, True) if options.checkpointing else (False,):
            given = ((feature_size, window), voxels, views, again)
            step = alone("step", *given)
            other = (math.nan, math.nan) if again else alone("reconstruction", *given)
            numbers = [f"{value:.2f}" for value in (*step, *other)]
            print(ROW.format(name, f"{voxels}³", views, "yes" if again else "no", *numbers), flush=True)
            if not again:
                rows.append((name, voxels, views, *step))
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
