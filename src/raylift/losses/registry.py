"""The objective of a recipe, by its name."""

from __future__ import annotations

from pydantic import ValidationError

from raylift.config.recipe import OBJECTIVES, ObjectiveConfig, Recipe
from raylift.errors import WrongUsage
from raylift.geometry import Geometry, VolumeGrid
from raylift.losses.objective import Objective, Setting
from raylift.plugins import load


def build_objective(recipe: Recipe, geometry: Geometry, grid: VolumeGrid) -> Objective:
    """Make the objective of a recipe, for volumes on a grid and an X-ray unit; its f comes from the recipe's seed.

    Raises:
        WrongUsage: another package's objective does not know a key of the recipe, or a value.
    """
    made: type[Objective] = load(OBJECTIVES[recipe.objective.name].path)
    config: ObjectiveConfig = recipe.objective
    if not isinstance(config, made.config_class):
        try:
            config = made.config_class.model_validate(config.model_dump())
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(["objective", *map(str, first["loc"])])
            raise WrongUsage(f"{recipe.name}: {place}: {first['msg']}") from None
    return made(config, Setting(grid, geometry, recipe.view_list, recipe.train.seed))
