"""What X-rays of a run's patients look like, learned at its end."""

from __future__ import annotations

import torch

from raylift.config.recipe import AugmentationConfig, Recipe, XrayAugmentationConfig
from raylift.data.dataset import PreparedDataset
from raylift.data.pairs import OfflinePairs, OnlinePairs
from raylift.geometry import View, VolumeGrid
from raylift.radiographs.out_of_distribution import OODDetector

SETS = 240  # of X-rays
PIXELS = 32
SPACING = 8.0  # mm, of the scans that are projected
SHARE = 0.5  # of the recipe's augmentation: what a patient may look like, not all that the network has learned from


def fit_ood_detector(recipe: Recipe, dataset: PreparedDataset) -> OODDetector | None:
    """Fit `OODDetector` to X-rays of the recipe's patients, views and units; None where there is one patient only."""
    cases = dataset.cases(recipe.data.split)
    if len(cases) < 2:
        return None
    given = recipe.data.augmentation.model_dump()
    settings = recipe.data.model_copy(
        update={
            "xray_pixels": PIXELS,
            "projection_spacing": max(SPACING, recipe.data.projection_spacing),
            # Swapped sides are what a film oriented the wrong way round shows, and strange.
            "xray_augmentation": XrayAugmentationConfig(),
            "augmentation": AugmentationConfig(**{name: SHARE * value for name, value in given.items()}),
        }
    )
    source = OnlinePairs if settings.pairs == "online" else OfflinePairs
    pairs = source(dataset, cases, recipe.view_list, settings, torch.device("cpu"), recipe.train.seed)
    if isinstance(pairs, OnlinePairs):
        # Volumes are not looked at.
        pairs.grid, pairs.fine_grid = (VolumeGrid.cube((0, 0, 0), dataset.cube_mm, edge) for edge in (1, 2))
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
