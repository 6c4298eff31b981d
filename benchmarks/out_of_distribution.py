"""Which X-rays are flagged as unlike those of the training, and which are not.

python benchmarks/out_of_distribution.py PREPARED WEIGHTS

OOD score of the X-rays of patients not seen, as they are and spoilt, and of photographs given as radiographs. Above 1
a reconstruction says not to trust it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from raylift import Reconstructor
from raylift.cli.console import print_table
from raylift.data.dataset import PreparedDataset
from raylift.evaluation.methods import stored_xrays
from raylift.radiographs.out_of_distribution import OOD_THRESHOLD

SPOILT: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # images (N, rows, columns)
    "as they are": lambda images: images,
    "turned by 90°": lambda images: np.rot90(images, axes=(1, 2)),
    "upside down": lambda images: images[:, ::-1],
    "grey scale inverted": lambda images: images.max(axis=(1, 2), keepdims=True) - images,
    "frontal and lateral confused": lambda images: images[::-1],
    "half as bright": lambda images: images / 2,
    "mirrored": lambda images: images[:, :, ::-1],
}
PHOTOGRAPHS = {"a cat": data.cat, "a photographer": data.camera, "coins": data.coins}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared")
    parser.add_argument("weights")
    options = parser.parse_args()
    dataset, reconstructor = PreparedDataset(options.prepared), Reconstructor.from_pretrained(options.weights)
    seen = reconstructor.weights.info.training.seen_cases
    cases = [dataset.case(name) for name in dataset.names("all") if name not in seen]
    found: dict[str, list[float]] = {}
    for name, spoil in SPOILT.items():
        for case in cases:
            xrays = stored_xrays(dataset, case, reconstructor.lifted_network.views)
            spoilt = replace(xrays, images=np.ascontiguousarray(spoil(xrays.images)))
            found.setdefault(name, []).append(ood_score(reconstructor, spoilt))
    with tempfile.TemporaryDirectory() as folder:
        for name, photograph in PHOTOGRAPHS.items():
            file = Path(folder) / f"{name}.png"
            Image.fromarray(photograph()).convert("L").save(file)
            found[name] = [ood_score(reconstructor, [file, file], ["pa", "lateral-left"])]
    print_table(
        [
            {"X-rays": name, "n": len(values), "least": f"{min(values):.2f}", "most": f"{max(values):.2f}",
             "flagged": sum(value > OOD_THRESHOLD for value in values)}
            for name, values in found.items()
        ]
    )  # fmt: skip


def ood_score(reconstructor: Reconstructor, xrays: object, views: list[str] | None = None) -> float:
    """What a reconstruction says of its X-rays."""
    value = reconstructor(xrays, views).ood_score  # type: ignore[arg-type]
    if value is None:
        raise SystemExit(f"{reconstructor.weights.path}: says nothing of what X-rays looked like")
    return value


if __name__ == "__main__":
    main()
