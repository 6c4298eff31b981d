"""How alike a real radiograph and the same projection of the volume made from it alone are, and where the heart is.

python benchmarks/likeness.py pa-1.png pa-2.png --weights WEIGHTS

Line integrals are compared where the rays cross the cube from face to face: elsewhere they meet what is outside of it.
The correlation does not ask for absolute values, which a radiograph's grey levels do not say. The heart's shadow is the
gap between the lungs below their hila: its middle is measured from that of the thorax, towards the patient's left.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from raylift.cli.console import print_table
from raylift.drr.operator import ProjectionOperator
from raylift.evaluation.clinical import HEART_LEVELS, find_lungs
from raylift.images.volume import Volume
from raylift.reconstruction.reconstructor import Reconstruction, Reconstructor


def likeness(made: Reconstruction) -> dict[str, str]:
    """Of the first X-ray and the volume's projection."""
    grid = made.volume.grid
    path = ProjectionOperator(grid, made.xrays.cameras[:1])(torch.ones(1, *grid.shape))[0, 0].numpy()
    inside = path > 0.95 * path.max()
    given, again = made.xrays.images[0][inside], made.reprojected[0][inside]
    return {
        "of the detector": f"{inside.mean():.0%}",
        "correlation": f"{np.corrcoef(given, again)[0, 1]:.3f}",
        "mean difference": f"{np.abs(given - again).mean() / given.mean():.1%}",
    }


def heart_offset(volume: Volume) -> float:
    """Of the heart's shadow from the middle of the thorax, in mm towards the patient's left: median over its levels."""
    lungs = find_lungs(volume.array, volume.grid.spacing)
    below = np.cumsum(lungs.sum(axis=(1, 2))) / max(1, lungs.sum())
    offsets = []
    for level in lungs[(below > HEART_LEVELS[0]) & (below <= HEART_LEVELS[1])]:
        depth = np.flatnonzero(level.any(axis=1))
        front, back = np.quantile(depth, [0.25, 0.75]).astype(int)
        columns = np.flatnonzero(level[front : back + 1].any(axis=0))
        gap = int(np.diff(columns).argmax())
        offsets.append(np.mean(columns[gap : gap + 2]) - np.mean(columns[[0, -1]]))
    return float(np.median(offsets) * volume.grid.spacing[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("radiographs", nargs="+", type=Path)
    parser.add_argument("--view", default="pa")
    parser.add_argument("--weights")
    options = parser.parse_args()
    reconstructor = Reconstructor.from_pretrained(options.weights)
    rows = []
    for file in options.radiographs:
        for refine in (False, True):
            made = reconstructor([file], [options.view], refine=refine)
            heart = {"heart to the left": f"{heart_offset(made.volume):.0f} mm"}
            rows.append({"radiograph": f"{file.name}{', refined' * refine}"} | likeness(made) | heart)
    print_table(rows)


if __name__ == "__main__":
    main()
