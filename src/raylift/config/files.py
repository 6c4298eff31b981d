"""Recipes in files: by path or by name, on top of one another, with changes from the command line."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from raylift.config.recipe import OBJECTIVES, Recipe
from raylift.errors import WrongUsage, nearest
from raylift.storage.records import DEEPEST, parse_yaml, read_yaml

MOST_BYTES = 2**20  # of a recipe
MOST_EXTENDED = 10

# In the installed package, or beside its source.
FOLDER = next(
    (
        place
        for place in (Path(__file__).parents[1] / "recipes", Path(__file__).parents[3] / "recipes")
        if place.is_dir()
    ),
    Path("recipes"),
)


def recipe_names() -> list[str]:
    """Names of the recipes that come with Raylift: `cpu`, `baselines/unet` and so on."""
    return sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.rglob("*.yaml"))


def find_recipe(place: str | Path) -> Path:
    """The file of a recipe: a path, or the name of one that comes with Raylift. Raises WrongUsage."""
    path = Path(place)
    return path if path.is_file() else find_packaged(place)


def find_packaged(place: str | Path) -> Path:
    """The file of a recipe that comes with Raylift, by name. Raises WrongUsage."""
    names = recipe_names()
    if str(place) in names:
        return FOLDER / f"{place}.yaml"
    wanted = str(place).removesuffix(".yaml").removeprefix("recipes/")
    raise WrongUsage(f"{place}: no such recipe; the nearest that comes with Raylift is '{nearest(wanted, names)}'")


def load_recipe(place: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe.

    A file may say `extends: other.yaml`, beside it: then it holds what differs, key by key; a block with another
    `name` replaces the whole block.

    Args:
        place: a YAML file, or the name of a recipe that comes with Raylift.
        overrides: "train.lr=1e-4" and the like; values are YAML.

    Raises:
        WrongUsage: the file is missing or no recipe, or a key or value is unknown; the message gives the place and
            the nearest known key.
    """
    path = find_recipe(place)
    data = _read(path)
    for override in overrides or []:
        key, equals, value = override.partition("=")
        if not equals:
            raise WrongUsage(f"--set {override}: give it as key=value, like train.lr=1e-4")
        try:
            read = parse_yaml(value)
        except ValueError as error:
            raise WrongUsage(f"--set {override}: its value is not YAML ({error})") from None
        _set(data, key.strip(), read)
    return parse_recipe(data, str(path))


def _read(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    real = Path(os.path.realpath(path))
    if real in above:
        raise WrongUsage(f"{path}: it extends itself")
    if len(above) >= MOST_EXTENDED:
        raise WrongUsage(f"{path}: more than {MOST_EXTENDED} recipes extend one another")
    try:
        data = read_yaml(path, MOST_BYTES)
    except OSError as error:
        raise WrongUsage(f"{path}: no recipe file ({error.strerror or error})") from None
    except ValueError as error:
        raise WrongUsage(f"{path}: not a YAML recipe ({error})") from None
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise WrongUsage(f"{path}: not a recipe: it holds no keys")
    below = data.pop("extends", None)
    if below is None:
        return data
    if not isinstance(below, str) or Path(below).suffix not in (".yaml", ".yml"):
        raise WrongUsage(f"{path}: extends: name a .yaml file, like ../cpu.yaml")
    return _merged(_read(path.parent / below, (*above, real)), data)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, key by key; a block with another name replaces the whole block."""
    merged = dict(below)
    for key, value in above.items():
        old = below.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and value.get("name", old.get("name")) == old.get("name"):
            merged[key] = _merged(old, value)
        else:
            merged[key] = value
    return merged


def parse_recipe(data: dict[str, Any], origin: str) -> Recipe:
    """A recipe from plain data; `origin` is named in errors. Raises WrongUsage."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = [str(p) for p in first["loc"] if p not in (*OBJECTIVES.own, "other")]
        if first["type"] == "extra_forbidden":
            near = ".".join([*place[:-1], str(nearest(place[-1], _fields(place[:-1], data)))])
            raise WrongUsage(f"{origin}: unknown key '{'.'.join(place)}'; the nearest known key is '{near}'") from None
        message = first["msg"].removeprefix("Value error, ")
        raise WrongUsage(": ".join(filter(None, [origin, ".".join(place), message]))) from None


def _set(data: dict[str, Any], key: str, value: Any) -> None:
    # YAML 1.1 reads 1e-4 as text; a number is what is meant.
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    *path, last = key.split(".")
    if len(path) > DEEPEST:
        raise WrongUsage(f"--set {key[:60]}: no such key")
    for part in path:
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            raise WrongUsage(f"--set {key}: '{part}' holds a value, not keys")
    data[last] = value


def _fields(place: list[str], data: dict[str, Any]) -> list[str]:
    """The keys that the model at `place` knows."""
    model: Any = Recipe
    for part in place:
        objective = part == "objective"
        model = OBJECTIVES[data[part]["name"]].config if objective else model.model_fields[part].annotation
    return list(model.model_fields)
