"""Our Swin UNETR beside MONAI's with the same weights: time, peak memory, and the difference of what comes out.

    python benchmarks/swin_unetr.py                                   # published size: feature size 48, window 7, 64³
    python benchmarks/swin_unetr.py --feature-size 12 --window 4 --batch 2
    python benchmarks/swin_unetr.py --check                           # equality over sizes, windows and widths
    python benchmarks/swin_unetr.py --profile                         # where our time goes

A run is forward and backward of one batch. The networks take turns, so that a busy machine slows both; times are
medians over the runs with their range, ratios those of the medians to MONAI's in float32. Peak memory is that of a
process of its own for each network. With several volumes in a batch, ours gives each a core, as training does.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from monai.networks.nets import SwinUNETR as MonaiSwinUNETR
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from raylift.networks.layers.per_sample import PerSampleParallel
from raylift.networks.swin_unetr import SwinUNETR

ROW = "{:<22} {:<30} {:>8} {:>12}"
# Words in the names of the profiler's operations.
KINDS = {
    "convolutions": ("conv",),
    "attention": ("_Attention",),
    "instance normalisation": ("_Normalised",),
    "layer normalisation": ("_LayerNorm",),
    "linear layers": ("addmm", "aten::mm", "aten::linear"),
    "GELU": ("gelu",),
}
CHECKED = [(f, w, n) for n in (64, 96) for f in (12, 24, 48) for w in (4, 7, 8)]


def build(name: str, feature_size: int, window: int) -> nn.Module:
    """A network of either kind; the same weights for the same sizes."""
    torch.manual_seed(0)
    theirs = MonaiSwinUNETR(in_channels=2, out_channels=1, feature_size=feature_size, window_size=window)
    if name == "MONAI":
        return theirs
    ours = SwinUNETR(2, 1, feature_size, window)
    ours.load_state_dict(theirs.state_dict())
    return ours


def step(network: nn.Module, volume: Tensor, mixed: bool) -> None:
    """Forward and backward."""
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        out = network(volume)
    out.float().square().mean().backward()
    network.zero_grad(set_to_none=True)


def peak_gib(name: str, mixed: bool, feature_size: int, window: int, shape: tuple[int, ...]) -> float:
    """What two steps of a network add to the peak of a fresh process, in GiB."""
    network, volume = build(name, feature_size, window), torch.rand(shape)
    network = PerSampleParallel(network) if name == "ours" else network
    before = _kib("VmRSS")
    for _ in range(2):
        step(network, volume, mixed)
    return (_kib("VmHWM") - before) / 2**20


def _kib(name: str) -> int:
    """What this process holds, or its peak, on Linux; `getrusage` begins with the peak of the parent."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


def compare(feature_size: int, window: int, shape: tuple[int, ...], runs: int) -> None:
    """Print a line for each network and precision."""
    networks = {name: build(name, feature_size, window) for name in ("MONAI", "ours")}
    networks["ours"] = PerSampleParallel(networks["ours"])
    volume = torch.rand(shape)
    entries = [(name, mixed) for mixed in (False, True) for name in networks]
    seconds: dict[tuple[str, bool], list[float]] = {entry: [] for entry in entries}
    for run in range(runs + 1):  # the first is not counted: it compiles and fills caches
        for name, mixed in entries:
            start = time.perf_counter()
            step(networks[name], volume, mixed)
            if run:
                seconds[name, mixed].append(time.perf_counter() - start)
    base = statistics.median(seconds["MONAI", False])
    print(ROW.format("forward + backward", "seconds: median (range)", "ratio", "GiB besides"))
    for name, mixed in entries:
        times = seconds[name, mixed]
        middle = statistics.median(times)
        spread = f"{middle:.2f} ({min(times):.2f} to {max(times):.2f})"
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            memory = pool.submit(peak_gib, name, mixed, feature_size, window, shape).result()
        title = f"{name}, {'bfloat16' if mixed else 'float32'}"
        print(ROW.format(title, spread, f"{base / middle:.2f}×", f"{memory:.2f}"), flush=True)


def profile(feature_size: int, window: int, shape: tuple[int, ...]) -> None:
    """Print what the kinds of operations take of our forward and backward, and the rate of the convolutions."""
    network, volume = build("ours", feature_size, window), torch.rand(shape)
    print(ROW.format("forward + backward", "of", "seconds", "share"))
    for mixed in (False, True):
        step(network, volume, mixed)
        with FlopCounterMode(display=False) as counter:
            step(network, volume, mixed)
        flops = sum(n for op, n in counter.get_flop_counts()["Global"].items() if "convolution" in str(op))
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as recorded:
            step(network, volume, mixed)
        seconds = dict.fromkeys((*KINDS, "everything else"), 0.0)
        for event in recorded.key_averages():
            kind = next((k for k, words in KINDS.items() if any(w in event.key for w in words)), "everything else")
            seconds[kind] += event.self_cpu_time_total / 1e6
        total = sum(seconds.values())
        for kind, taken in seconds.items():
            rate = f" ({flops / taken / 1e9:.0f} GFLOP/s)" if kind == "convolutions" else ""
            print(ROW.format("bfloat16" if mixed else "float32", kind + rate, f"{taken:.3f}", f"{taken / total:.0%}"))


def check() -> None:
    """Print the largest differences from MONAI's, in values and gradients, for many sizes."""
    print(
        "feature size, window, voxels: largest |difference| of values, gradients; relative in bfloat16: ours, MONAI's"
    )
    for feature_size, window, voxels in CHECKED:
        torch.manual_seed(1)
        volume, target = torch.rand(1, 2, *[voxels] * 3), torch.rand(1, 1, *[voxels] * 3)
        found, halves = {}, {}
        for name in ("MONAI", "ours"):
            network = build(name, feature_size, window)
            out = network(volume)
            (out * target).mean().backward()
            found[name] = out.detach(), {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                halves[name] = network(volume).float()
        (expected, slopes), (got, ours) = found["MONAI"], found["ours"]
        values = float((expected - got).abs().max())
        gradients = max(float((slopes[n] - ours[n]).abs().max()) for n in slopes)
        relative = [f"{float((halves[n] - expected).norm() / expected.norm()):.1e}" for n in ("ours", "MONAI")]
        print(f"{feature_size}, {window}, {voxels}³: {values:.1e}, {gradients:.1e}; {', '.join(relative)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--feature-size", type=int, default=48)
    parser.add_argument("--window", type=int, default=7)
    parser.add_argument("--voxels", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="where our time goes, on all threads")
    parser.add_argument("--check", action="store_true", help="compare what comes out, not the time")
    options = parser.parse_args()
    print(
        f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, {platform.processor() or platform.machine()}"
    )
    if options.check:
        check()
        return
    shape = (options.batch, 2, *[options.voxels] * 3)
    if options.profile:
        profile(options.feature_size, options.window, shape)
        return
    print(f"feature size {options.feature_size}, window {options.window}, input {'×'.join(map(str, shape))}")
    compare(options.feature_size, options.window, shape, options.runs)


if __name__ == "__main__":
    main()
