"""Every benchmark of speed but for quality.py, which takes finished runs: one after the other, an hour on two cores.

    python benchmarks/all.py PREPARED                                # a dataset of `raylift data prepare`
    python benchmarks/all.py PREPARED --before CHECKOUT --ct CT      # training against another checkout; a real scan

Run nothing beside it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="prepared dataset")
    parser.add_argument("--before", type=Path, help="another checkout of Raylift, for the training step")
    parser.add_argument("--ct", type=Path, help="scan for the projector; a phantom by default")
    options = parser.parse_args()
    before = ["--against", options.before] if options.before else []
    small = ["--feature-size", 12, "--window", 4]
    runs = [
        ["swin_unetr.py"],
        ["swin_unetr.py", *small],
        ["swin_unetr.py", *small, "--batch", 2],
        ["swin_unetr.py", "--feature-size", 24, "--window", 4],
        ["step.py", options.data, *before],
        ["projector.py", *([options.ct] if options.ct else [])],
        ["reconstruction.py"],
        ["sizes.py", "--checkpointing"],
        ["swin_unetr.py", "--check"],
    ]
    failed = []
    for script, *arguments in runs:
        words = [str(HERE / str(script)), *(str(argument) for argument in arguments)]
        print(f"\n$ python {' '.join(words)}", flush=True)
        if subprocess.run([sys.executable, *words], check=False).returncode:
            failed.append(script)
    if failed:
        sys.exit(f"failed: {', '.join(map(str, failed))}")


if __name__ == "__main__":
    main()
