"""How long one reconstruction takes with the embedded weights, from the start of the process to written files.

    python benchmarks/reconstruction.py             # two X-rays of a phantom
    python benchmarks/reconstruction.py --runs 10

The commands take turns, so that a busy machine slows all; times are medians over the runs with their range. `raylift
reconstruct` with the weights exported for OpenVINO is measured where `pip install 'raylift[export]'` was made. The
network's time is that of the second and later volumes of a process; the first also loads the compiled loops.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from raylift.data.phantom import thorax_phantom
from raylift.io.volumes import write_volume
from raylift.model.weights import Weights, export_weights, load_weights

ROW = "{:<44} {:<28}"
RAYLIFT = str(Path(sys.executable).with_name("raylift"))


def spread(seconds: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


def timed(work: Callable[[], object]) -> float:
    """Seconds that some work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def command(*arguments: object) -> Callable[[], object]:
    """A command of Raylift's, in a process of its own."""
    given = [RAYLIFT, *(str(argument) for argument in arguments)]
    return lambda: subprocess.run(given, check=True, capture_output=True)


def network(weights: Weights, mixed: bool = False) -> Callable[[], object]:
    """The network of weights on one lifted patient."""
    pixels = weights.lifted_network.geometry.pixels
    lifted = weights.lifted_network.inputs(torch.rand(1, len(weights.lifted_network.views), pixels, pixels))

    def work() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            weights.lifted_network.network(lifted)

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads\n")
    with tempfile.TemporaryDirectory() as folder:
        scan, xrays, model = (Path(folder) / name for name in ("ct.nii.gz", "xrays", "model.onnx"))
        write_volume(thorax_phantom(0, 2.5), scan)
        command("drr", scan, "-o", xrays)()
        weights = load_weights()
        works = {
            "raylift --help": command("--help"),
            "raylift reconstruct": command("reconstruct", xrays, "-o", Path(folder) / "volume.nii.gz"),
            "network, float32": network(weights),
            "network, bfloat16": network(weights, mixed=True),
        }
        if importlib.util.find_spec("openvino") and importlib.util.find_spec("onnxscript"):
            export_weights(weights, model)
            output = Path(folder) / "other.nii.gz"
            works["raylift reconstruct --weights model.onnx"] = command("reconstruct", xrays, "-o", output,
                                                                        "--weights", model)  # fmt: skip
            works["network, exported, float32"] = network(load_weights(model))
        seconds: dict[str, list[float]] = {name: [] for name in works}
        for run in range(options.runs + 1):  # the first is not counted: it fills caches
            for name, work in works.items():
                taken = timed(work)
                if run:
                    seconds[name].append(taken)
        print(ROW.format("", "seconds: median (range)"))
        for name, taken_all in seconds.items():
            print(ROW.format(name, spread(taken_all)))


if __name__ == "__main__":
    main()
