from .files import load_recipe as load_recipe
from .files import parse_recipe as parse_recipe
from .files import recipe_names as recipe_names
from .recipe import OBJECTIVES as OBJECTIVES
from .recipe import ObjectiveConfig as ObjectiveConfig
from .recipe import Recipe as Recipe

__all__ = [
    "OBJECTIVES",
    "ObjectiveConfig",
    "Recipe",
    "load_recipe",
    "parse_recipe",
    "recipe_names",
]
