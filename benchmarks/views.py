"""SSIM, PSNR and coverage of one set of weights against the number of views, on patients seen and not seen.

python benchmarks/views.py PREPARED WEIGHTS --refine -o views.png  # a dataset with --views 0,45,90,135,180,225,270,315

Each number of views holds those of the smaller numbers, so that a curve only falls where a view does harm.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from raylift import Reconstructor
from raylift.cli.console import print_table, progress_bar
from raylift.data.dataset import Case, PreparedDataset
from raylift.evaluation.calibration import coverage, offsets
from raylift.evaluation.methods import score_case, stored_xrays
from raylift.geometry import View
from raylift.reconstruction.reconstructor import Reconstruction

ORDER = (0.0, 90.0, 45.0, 135.0, 180.0, 270.0, 225.0, 315.0)
SHOWN = {"ssim": "SSIM", "psnr": "PSNR (dB)"}


def measure(made: Reconstruction, case: Case, widths: list[float] | None) -> dict[str, float]:
    """The scores of a volume, and the share of its voxels inside of the intervals that the uncertainty says."""
    scores = score_case(made.volume, case, "hu")
    uncertainty = (
        {} if made.uncertainty is None else coverage(*offsets(made.volume, made.uncertainty, case.truth), widths)
    )
    return {name: scores[name] for name in SHOWN} | uncertainty


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared")
    parser.add_argument("weights")
    parser.add_argument("--refine", action="store_true", help="score refined volumes too")
    parser.add_argument("-o", "--output", type=Path, default=Path("views.png"))
    options = parser.parse_args()
    dataset, reconstructor = PreparedDataset(options.prepared), Reconstructor.from_pretrained(options.weights)
    rows, curves = [], {}
    seen = reconstructor.weights.info.training.seen_cases
    widths = reconstructor.weights.info.uncertainty_widths
    cases = [dataset.case(name) for name in dataset.names("all")]
    groups = {"not seen": [c for c in cases if c.name not in seen], "seen": [c for c in cases if c.name in seen]}
    for (title, group), refine in product(groups.items(), (False, True) if options.refine else (False,)):
        if not group:
            continue
        title += ", refined" if refine else ""
        means: list[dict[str, float]] = []
        with progress_bar(title) as bar:
            for count in range(1, len(ORDER) + 1):
                views, found = [View(angle) for angle in ORDER[:count]], []
                for case in group:
                    made = reconstructor(stored_xrays(dataset, case, views), refine=refine)
                    found.append(measure(made, case, widths))
                means.append({name: float(np.mean([one[name] for one in found])) for name in found[0]})
                rows.append({"patients": title, "views": count} | {k: f"{v:.3f}" for k, v in means[-1].items()})
                bar(f"{count} views", count, len(ORDER))
        curves[title] = means
    print_table(rows)
    figure, axes = plt.subplots(1, len(SHOWN), figsize=(9, 3.4), layout="constrained")
    for axis, (name, label) in zip(axes, SHOWN.items(), strict=True):
        for title, means in curves.items():
            style = f"C{title.startswith('seen'):d}o{'--' if title.endswith('refined') else '-'}"
            axis.plot(range(1, len(ORDER) + 1), [one[name] for one in means], style, markersize=3, label=title)
        axis.set(xlabel="views", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(options.output, dpi=130)


if __name__ == "__main__":
    main()
