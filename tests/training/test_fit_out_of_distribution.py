"""What X-rays of a run's patients look like: the recipe's own, without what no patient shows."""

from pathlib import Path

import numpy as np
import pytest
import torch

from raylift.config.files import parse_recipe
from raylift.data.dataset import PreparedDataset
from raylift.training import out_of_distribution as module
from raylift.training.out_of_distribution import fit_ood_detector


@pytest.fixture(autouse=True)
def _all_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETS", 240)


def content(**data: object) -> dict[str, object]:
    return {
        "name": "tiny",
        "data": {"xray_pixels": 16, **data},
        "network": {"name": "unet", "feature_size": 4},
        "objective": {"name": "paired"},
        "train": {"steps": 1},
    }


@pytest.mark.parametrize(
    "data",
    [
        {"pairs": "online", "projection_spacing": 20, "augmentation": {"rotation": 4}},
        {"pairs": "offline", "xray_augmentation": {"flip_probability": 1.0}},
    ],
)
def test_the_training_patients_are_familiar_and_mirrored_ones_less(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, data: dict[str, object]
) -> None:
    monkeypatch.setattr(module, "SETS", 40)
    dataset = PreparedDataset(prepared)
    recipe = parse_recipe(content(**data), "test")
    found = fit_ood_detector(recipe, dataset)
    assert found is not None
    case = dataset.cases("train")[0]
    stored = torch.from_numpy(case.xrays[dataset.view_indices(recipe.view_list)])
    images = torch.nn.functional.interpolate(stored[None], (32, 32), mode="area")[0].numpy()
    plain = found.distances(images, recipe.view_list)
    mirrored = found.distances(np.ascontiguousarray(images[..., ::-1]), recipe.view_list)
    assert plain.max() < 1.0
    assert (mirrored > 2 * plain).all()
