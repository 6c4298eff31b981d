"""Quality on the validation patients against wall-clock, for training runs of any checkouts.

python benchmarks/quality.py before=runs/before now=runs/now -o quality.png
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import matplotlib.pyplot as plt

SHOWN = {"validation/ssim": "SSIM", "validation/psnr": "PSNR (dB)"}


def curve(run: Path, column: str) -> tuple[list[float], list[float]]:
    """Minutes and values of a run's `metrics.csv` and `timing.csv`."""
    with (run / "timing.csv").open(newline="") as file:
        seconds = {row["step"]: float(row["seconds"]) for row in csv.DictReader(file)}
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get(column)]
    return [seconds[row["step"]] / 60 for row in rows], [float(row[column]) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="NAME=RUN")
    parser.add_argument("-o", "--output", type=Path, default=Path("quality.png"))
    options = parser.parse_args()
    if not all("=" in given for given in options.runs):
        parser.error("give runs as NAME=RUN")
    figure, axes = plt.subplots(1, len(SHOWN), figsize=(9, 3.4), layout="constrained")
    for name, _, run in (given.partition("=") for given in options.runs):
        for axis, column in zip(axes, SHOWN, strict=True):
            minutes, values = curve(Path(run), column)
            axis.plot(minutes, values, "o-", markersize=3, label=name)
            print(
                f"{name}: {SHOWN[column]} "
                + ", ".join(f"{v:.3f} ({m:.0f} min)" for m, v in zip(minutes, values, strict=True))
            )
    for axis, label in zip(axes, SHOWN.values(), strict=True):
        axis.set(xlabel="minutes of training", ylabel=f"{label}, validation patients")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(options.output, dpi=130)


if __name__ == "__main__":
    main()
