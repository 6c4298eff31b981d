"""Recipes of the tiny network for tests of training."""

from typing import Any

from raylift.config.files import parse_recipe
from raylift.config.recipe import Recipe

PAPER = {"name": "paper", "g_updates": 2}
PAIRED = {"name": "paired", "ssim": 0.2, "projection": 0.1}
# Objective, data and the rest of each kind of run that must not depend on interruptions.
KINDS = {
    "paired": (PAIRED, None),
    "paper": (PAPER, {"xray_augmentation": {"contrast": [0.5, 1.5], "flip_probability": 0.5}}),
    "any views": (
        PAIRED,
        {"pairs": "online", "projection_spacing": 20, "any_views": 0.7, "any_geometry": 0.5},
        {
            "aggregation": "harmonics",
            "network": {"name": "tiny", "feature_size": 4, "iterations": 2, "uncertainty": True},
        },
    ),
    "online": (PAIRED, {"pairs": "online", "projection_spacing": 20, "augmentation": {"rotation": 5, "elastic": 4}}),
}


def content(
    objective: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    rest: dict[str, Any] | None = None,
    **train: Any,
) -> dict[str, Any]:
    """A recipe of the tiny network: 6 steps of 2 pairs, a row of metrics every other, a checkpoint after each."""
    return {
        "name": "tiny",
        "data": {"pairs": "offline", "xray_pixels": 16} | (data or {}),
        "network": {"name": "tiny", "feature_size": 4},
        "objective": objective or {"name": "paired"},
        "train": {
            "steps": 6,
            "lr": 0.01,
            "warmup": 2,
            "log_every": 2,
            "validate_every": 4,
            "checkpoint_minutes": 0,
            "preview_minutes": 60,
            **train,
        },
    } | (rest or {})


def recipe(*args: Any, **settings: Any) -> Recipe:
    return parse_recipe(content(*args, **settings), "test")
