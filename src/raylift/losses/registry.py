"""Construction of a recipe's objective from its name."""

from __future__ import annotations

from pydantic import ValidationError

from raylift.config.recipe import OBJECTIVES, ObjectiveConfig, Recipe
from raylift.errors import WrongUsage
from raylift.geometry import Geometry, VolumeGrid
from raylift.losses.objective import Objective, Setting
from raylift.plugins import load


def build_objective(recipe: Recipe, geometry: Geometry, grid: VolumeGrid) -> Objective:
    """Return the objective of a recipe, whose f is initialised from the recipe's seed.

    Args:
        recipe: the recipe.
        geometry: of the X-ray unit.
        grid: of the volumes.

    Raises:
        WrongUsage: the objective is another package's, and a key or value of the recipe is invalid for it.
    """
    objective_class: type[Objective] = load(OBJECTIVES[recipe.objective.name].path)
    config: ObjectiveConfig = recipe.objective
    if not isinstance(config, objective_class.config_class):
        try:
            config = objective_class.config_class.model_validate(config.model_dump())
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(["objective", *map(str, first["loc"])])
            raise WrongUsage(f"{recipe.name}: {key}: {first['msg']}") from None
    return objective_class(config, Setting(grid, geometry, recipe.view_list, recipe.train.seed))
