"""How sharp volumes are beside the true ones: spectra of the gradient's magnitude, VIF, and what sharpness costs.

python benchmarks/sharpness.py PREPARED mean=runs/any-views sharp=runs/sharp refined=runs/any-views:refine

A spectrum is the mean power of the gradient's magnitude in shells of equal spatial frequency, over the patients not
seen, relative to that of the true volumes: below 1 is blur, above 1 is invented.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from raylift import Reconstructor
from raylift.cli.console import print_table, progress_bar
from raylift.data.dataset import PreparedDataset
from raylift.evaluation.clinical import mean_gradient, vif
from raylift.evaluation.methods import score_case, stored_xrays
from raylift.images.hounsfield import WINDOW
from raylift.images.volume import Volume

SHELLS = 12


def spectrum(volume: np.ndarray, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Power of the gradient's magnitude in `SHELLS` shells of spatial frequency, up to Nyquist's.

    Args:
        volume: (z, y, x) in HU, a cube.
        spacing: in mm.

    Returns:
        The shells' middles in cycles per mm, and the mean power in each, both (SHELLS,).
    """
    magnitude = np.sqrt(sum(np.square(g) for g in np.gradient(volume, spacing)))
    power = np.abs(np.fft.fftn(magnitude - magnitude.mean())) ** 2
    along = np.fft.fftfreq(len(volume), spacing)
    radius = np.sqrt(sum(np.square(axis) for axis in np.meshgrid(along, along, along, indexing="ij")))
    edges = np.linspace(0, 0.5 / spacing, SHELLS + 1)
    shell = np.digitize(radius, edges) - 1
    inside = shell < SHELLS
    sums, counts = (np.bincount(shell[inside], w, SHELLS) for w in (power[inside], None))
    return (edges[1:] + edges[:-1]) / 2, sums / counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared")
    parser.add_argument("weights", nargs="+", help="NAME=WEIGHTS, or NAME=WEIGHTS:refine")
    parser.add_argument("-o", "--output", type=Path, default=Path("sharpness.png"))
    options = parser.parse_args()
    if not all("=" in given for given in options.weights):
        parser.error("give weights as NAME=WEIGHTS")
    dataset, rows = PreparedDataset(options.prepared), []
    figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
    with progress_bar("sharpness") as bar:
        for done, given in enumerate(options.weights, 1):
            name, _, place = given.partition("=")
            reconstructor = Reconstructor.from_pretrained(place.removesuffix(":refine"))
            seen = reconstructor.weights.info.training.seen_cases
            cases = [dataset.case(case) for case in dataset.names("all") if case not in seen]
            if not cases:
                raise SystemExit(f"{place} has seen all patients of {dataset.folder}")
            found, powers = [], []
            for case in cases:
                xrays = stored_xrays(dataset, case, reconstructor.lifted_network.views)
                made = reconstructor(xrays, refine=place.endswith(":refine")).volume
                measures, power = measure(made, case.truth)
                scores = score_case(made, case, "hu")
                found.append({key: scores[key] for key in ("ssim", "psnr", "mae")} | measures)
                powers.append(power)
            rows.append({"weights": name, "patients": len(cases)}
                        | {key: f"{np.mean([one[key] for one in found]):.3f}" for key in found[0]})  # fmt: skip
            frequencies, _ = spectrum(made.array, made.grid.spacing[0])
            axis.plot(frequencies, np.mean(powers, 0), "o-", markersize=3, label=name)
            bar(name, done, len(options.weights))
    print_table(rows)
    axis.axhline(1, color="gray", linestyle=":", linewidth=0.8)
    axis.set(xlabel="spatial frequency (1/mm)", ylabel="power, relative to the true volumes'", yscale="log")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.savefig(options.output, dpi=130)


def measure(made: Volume, truth: Volume) -> tuple[dict[str, float], np.ndarray]:
    """VIF, gradients and power relative to the truth's, of a volume on the truth's grid."""
    true = np.clip(truth.array.astype(np.float32), *WINDOW)
    spacing = truth.grid.spacing
    (_, power), (_, true_power) = (spectrum(array, spacing[0]) for array in (made.array, true))
    gradients = mean_gradient(made.array, spacing) / mean_gradient(true, spacing)
    return {"VIF": vif(made.array, true), "gradients": gradients}, power / true_power


if __name__ == "__main__":
    main()
