"""The out-of-distribution detector of a run, fitted to X-rays of its patients at its end."""

from __future__ import annotations

import torch

from raylift.config.recipe import AugmentationConfig, Recipe, XrayAugmentationConfig
from raylift.data.dataset import PreparedDataset
from raylift.data.pairs import OfflinePairs, OnlinePairs
from raylift.geometry import View
from raylift.radiographs.out_of_distribution import OODDetector

SETS = 240  # of X-rays
PIXELS = 32
SPACING = 8.0  # mm, of the scans that are projected
SHARE = 0.5  # of the recipe's augmentation: what a patient may look like, not all that the network has learned from


def fit_ood_detector(recipe: Recipe, dataset: PreparedDataset) -> OODDetector | None:
    """Return an `OODDetector` fitted to X-rays of the recipe's patients; None where there is one patient only.

    Args:
        recipe: whose views, geometries and augmentation the X-rays show.
        dataset: that it was trained on.
    """
    cases = dataset.cases(recipe.data.split)
    if len(cases) < 2:
        return None
    augmentation = recipe.data.augmentation.model_dump()
    data = recipe.data.model_copy(
        update={
            "xray_pixels": PIXELS,
            "projection_spacing": max(SPACING, recipe.data.projection_spacing),
            # Swapped sides are what a film oriented the wrong way round shows: out of the distribution.
            "xray_augmentation": XrayAugmentationConfig(),
            "augmentation": AugmentationConfig(**{name: SHARE * value for name, value in augmentation.items()}),
        }
    )
    source = dataset, cases, recipe.view_list, data, torch.device("cpu"), recipe.train.seed
    # The truth is not looked at, so that one voxel of it is enough.
    pairs = OnlinePairs(*source, voxels=1) if data.pairs == "online" else OfflinePairs(*source)
    images: list[torch.Tensor] = []
    views: list[View] = []
    patients: list[int] = []
    for number in range(SETS // 2):
        batch = pairs.batch(number, 2)
        for xrays, patient in zip(batch.xrays, batch.patients, strict=True):
            images += list(xrays)
            views += batch.views
            patients += [patient] * len(batch.views)
    return OODDetector.fit(torch.stack(images).numpy(), views, patients)
