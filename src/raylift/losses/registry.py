"""What training minimises: the paper's neural optimal transport, the paired objective, and the competitors'."""

from __future__ import annotations

from raylift.config.recipe import PaperObjectivePart, Recipe, WassersteinObjectivePart, X2CTObjectivePart
from raylift.geometry import Geometry, VolumeGrid
from raylift.losses.adversarial import WassersteinObjective, X2CTObjective
from raylift.losses.neural_ot import PaperObjective
from raylift.losses.objective import Translation
from raylift.losses.paired import PairedObjective
from raylift.losses.ssim import structural_similarity

__all__ = [
    "PairedObjective",
    "PaperObjective",
    "Translation",
    "WassersteinObjective",
    "X2CTObjective",
    "build_objective",
    "structural_similarity",
]


def build_objective(
    recipe: Recipe, geometry: Geometry, grid: VolumeGrid
) -> PaperObjective | PairedObjective | WassersteinObjective | X2CTObjective:
    """The objective of a recipe, for volumes on a grid and an X-ray unit; its f comes from the recipe's seed.

    An objective is a module with `g_terms(made)`, the terms of g's loss by name, already weighted, whose sum is
    minimised; `d`, the network that is trained against g, or None; and `d_loss(made)`. A training step is `g_updates`
    updates of g, then `d_updates` of d, on fresh minibatches, or on those of g's last update where `d_shares` them.
    """
    settings = recipe.objective
    if isinstance(settings, PaperObjectivePart):
        return PaperObjective(settings, recipe.train.seed, grid.shape[0])
    if isinstance(settings, WassersteinObjectivePart):
        return WassersteinObjective(settings)
    if isinstance(settings, X2CTObjectivePart):
        return X2CTObjective(settings, geometry, grid, recipe.view_list)
    return PairedObjective(settings, grid, recipe.train.seed)
