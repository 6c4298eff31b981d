"""What aligning the views and refining the volume bring, on a prepared dataset whose views are displaced at random.

python benchmarks/alignment.py PREPARED WEIGHTS --split validation --draws 3

The scans are projected again with each view displaced by up to 5° about and 10 mm along each axis; the mean over the
views, which X-rays cannot tell, is taken away. Scores are of the protocol hu; errors of the views are means over axes.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np

from raylift import Reconstructor
from raylift.cli.console import print_table, progress_bar
from raylift.data.dataset import PreparedDataset
from raylift.drr.projector import project_volume
from raylift.evaluation.methods import score_case
from raylift.geometry import View
from raylift.images.volume import Volume
from raylift.images.xray_set import XraySet
from raylift.reconstruction.alignment import displace
from raylift.reconstruction.reconstructor import Reconstruction

MOST = np.repeat([5.0, 10.0], 3)  # degrees, mm


def displacements(views: tuple[View, ...]) -> np.ndarray:
    """(N, 6): turns in degrees and shifts in mm."""
    return np.array([[*view.turn, *view.shift] for view in views])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared")
    parser.add_argument("weights")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--draws", type=int, default=3)
    options = parser.parse_args()
    dataset = PreparedDataset(options.prepared)
    reconstructor = Reconstructor.from_pretrained(options.weights)
    views, unit = reconstructor.lifted_network.views, reconstructor.geometry
    rng = np.random.default_rng(0)
    rows: dict[str, list[dict[str, float]]] = defaultdict(list)
    cases = dataset.cases(options.split)
    with progress_bar("aligning") as bar:
        for done, case in enumerate(cases):
            scan = Volume(np.asarray(case.context), case.context_grid)

            def add(name: str, made: Reconstruction, true: np.ndarray, of: object = case) -> None:
                off = np.abs(displacements(made.xrays.views) - true).mean(0)
                errors = {"turn_deg": off[:3].mean(), "shift_mm": off[3:].mean(), "up_mm": off[5]}
                scores = score_case(made.volume, of, "hu")
                rows[name].append({key: scores[key] for key in ("ssim", "psnr", "mae")} | errors | {
                    "own error": made.reprojection_error,
                    "with surroundings": made.refinement.error_after if made.refinement else np.nan,
                })  # fmt: skip

            for draw in range(options.draws + 1):  # the first is none
                true = rng.uniform(-MOST, MOST, (len(views), 6)) * (draw > 0)
                true -= true.mean(0)
                where = displace(views, true)
                xrays = XraySet(project_volume(scan, unit, where, case.isocentre), views, unit, case.isocentre)
                label = "displaced" if draw else "not displaced"
                for align in (False, True):
                    for refine in (False, True):
                        name = label + ", aligned" * align + ", refined" * refine
                        add(name, reconstructor(xrays, align=align, refine=refine, seconds=600), true)
                if draw:
                    known = XraySet(xrays.images, where, unit, case.isocentre)
                    add("displacement known", reconstructor(known), true)
            bar(case.name, done + 1, len(cases))
    print_table(
        [
            {"X-rays": name, "n": len(found)}
            | {key: f"{np.mean([one[key] for one in found]):.{3 if key != 'mae' else 4}f}" for key in found[0]}
            for name, found in rows.items()
        ]
    )


if __name__ == "__main__":
    main()
