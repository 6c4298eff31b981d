"""Uncertainty along the beam: how far borders that face each axis are predicted to be off, and are, by the views given.

python benchmarks/beam.py PREPARED WEIGHTS -o beam.png      # weights of any views, patients not seen

A frontal view looks along y, from front to back: where borders that face it lie is what it does not show. The table has
root mean squares in HU over voxels, weighted by the true volume's gradient along each axis; the picture shows the
uncertainty for a phantom.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from raylift import Reconstructor
from raylift.cli.console import print_table, progress_bar
from raylift.data.dataset import PreparedDataset
from raylift.data.phantom import thorax_phantom
from raylift.data.thorax import find_thorax
from raylift.drr.projector import project_volume
from raylift.evaluation.methods import stored_xrays
from raylift.geometry import View
from raylift.images.hounsfield import WINDOW
from raylift.images.volume import Volume
from raylift.images.xray_set import XraySet
from raylift.reconstruction.reconstructor import Reconstruction

VIEWS = {"frontal": (View(0.0),), "lateral": (View(90.0),), "both": (View(0.0), View(90.0))}
AXES = {"x (to the left)": 2, "y (to the back)": 1, "z (up)": 0}


def at_borders(made: Reconstruction, truth: Volume) -> dict[str, float]:
    """The uncertainty, and the error, at borders that face each axis, in HU."""
    assert made.uncertainty is not None
    true = np.clip(truth.array.astype(np.float32), *WINDOW)
    slopes, found = np.abs(np.gradient(true)), dict[str, float]()
    for name, axis in AXES.items():
        for what, array in (("uncertainty", made.uncertainty.array), ("error", made.volume.array - true)):
            found[f"{what}, {name}"] = float(np.sqrt(np.average(np.square(array), weights=slopes[axis])))
    return found


def draw(reconstructor: Reconstructor, path: Path) -> None:
    """Planes through the volume and the uncertainty of a phantom, a row for each set of views."""
    phantom = thorax_phantom(0)
    isocentre, unit = find_thorax(phantom).centre, reconstructor.geometry
    figure, axes = plt.subplots(len(VIEWS), 4, figsize=(9, 6.6), layout="constrained")
    for row, (name, views) in zip(axes, VIEWS.items(), strict=True):
        images = project_volume(phantom, unit, views, isocentre)
        made = reconstructor(XraySet(images, views, unit, isocentre))
        assert made.uncertainty is not None
        middle = made.volume.array.shape[0] // 2
        planes = {"axial": np.s_[middle], "sagittal": np.s_[::-1, :, middle]}
        shown = [(made.volume.array, plane) for plane in planes.values()]
        shown += [(made.uncertainty.array, plane) for plane in planes.values()]
        titles = [*planes, *(f"uncertainty, {plane}" for plane in planes)]
        for axis, (array, plane), title in zip(row, shown, titles, strict=True):
            uncertainty = title.startswith("uncertainty")
            picture = axis.imshow(array[plane], cmap="magma" if uncertainty else "gray",
                                  vmin=0 if uncertainty else -1000, vmax=500)  # fmt: skip
            axis.set(xticks=[], yticks=[], title=title)
        row[0].set_ylabel(name)
        figure.colorbar(picture, ax=row[3], label="HU")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared")
    parser.add_argument("weights")
    parser.add_argument("-o", "--output", type=Path, default=Path("beam.png"))
    options = parser.parse_args()
    dataset, reconstructor = PreparedDataset(options.prepared), Reconstructor.from_pretrained(options.weights)
    seen, rows = reconstructor.weights.info.training.seen_cases, []
    cases = [dataset.case(name) for name in dataset.names("all") if name not in seen]
    if not cases:
        raise SystemExit(f"{options.weights} has seen all patients of {dataset.folder}")
    with progress_bar("borders") as bar:
        for done, (name, views) in enumerate(VIEWS.items(), 1):
            found = [at_borders(reconstructor(stored_xrays(dataset, case, views)), case.truth) for case in cases]
            rows.append({"views": name, "patients": len(cases)}
                        | {key: f"{np.mean([one[key] for one in found]):.0f}" for key in found[0]})  # fmt: skip
            bar(name, done, len(VIEWS))
    print_table(rows)
    draw(reconstructor, options.output)


if __name__ == "__main__":
    main()
