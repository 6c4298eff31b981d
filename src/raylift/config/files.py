"""Recipe files: found by path or name, extending one another, and changed from the command line."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from raylift.config.recipe import OBJECTIVES, Recipe
from raylift.errors import WrongUsage, nearest
from raylift.storage.records import DEEPEST, parse_yaml, read_yaml

MOST_RECIPE_BYTES = 2**20  # of a recipe
MOST_EXTENDED = 10  # recipes in a chain of `extends`

# In the installed package, or beside its source.
FOLDER = next(
    (
        folder
        for folder in (Path(__file__).parents[1] / "recipes", Path(__file__).parents[3] / "recipes")
        if folder.is_dir()
    ),
    Path("recipes"),
)


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with Raylift: `cpu`, `baselines/unet` and so on."""
    return sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.rglob("*.yaml"))


def find_recipe(recipe: str | Path) -> Path:
    """Return the file of a recipe, given its path or the name of one that comes with Raylift.

    Raises WrongUsage, through `find_packaged`, if there is neither.
    """
    path = Path(recipe)
    return path if path.is_file() else find_packaged(recipe)


def find_packaged(name: str | Path) -> Path:
    """Return the file of a recipe that comes with Raylift, by its name.

    Raises:
        WrongUsage: there is none; the message gives the name that is spelt most like it.
    """
    names = recipe_names()
    if str(name) in names:
        return FOLDER / f"{name}.yaml"
    stem = str(name).removesuffix(".yaml").removeprefix("recipes/")
    raise WrongUsage(f"{name}: no such recipe; the nearest that comes with Raylift is '{nearest(stem, names)}'")


def load_recipe(recipe: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe from a file and apply overrides to it.

    A file may contain `extends: other.yaml`, a path relative to its own folder. It then holds only the keys that
    differ; a block with another `name` replaces the whole block.

    Args:
        recipe: path of a YAML file, or the name of a recipe that comes with Raylift.
        overrides: "train.lr=1e-4" and the like; values are YAML.

    Returns:
        The checked recipe.

    Raises:
        WrongUsage: the file is missing or is not a recipe, or a key or value is invalid; the message gives the key and,
            if it is unknown, the nearest known one.
    """
    path = find_recipe(recipe)
    data = _read(path)
    for override in overrides or []:
        key, equals, value = override.partition("=")
        if not equals:
            raise WrongUsage(f"--set {override}: give it as key=value, like train.lr=1e-4")
        try:
            parsed = parse_yaml(value)
        except ValueError as error:
            raise WrongUsage(f"--set {override}: its value is not YAML ({error})") from None
        _set(data, key.strip(), parsed)
    return parse_recipe(data, str(path))


def _read(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a recipe file, and merge it onto the recipe that it extends.

    Args:
        path: of the file.
        above: the files that led to it by `extends`.

    Returns:
        The merged blocks.

    Raises:
        WrongUsage: a file cannot be read or is not a recipe, or the chain of `extends` is circular or too long.
    """
    real = Path(os.path.realpath(path))
    if real in above:
        raise WrongUsage(f"{path}: it extends itself")
    if len(above) >= MOST_EXTENDED:
        raise WrongUsage(f"{path}: more than {MOST_EXTENDED} recipes extend one another")
    try:
        data = read_yaml(path, MOST_RECIPE_BYTES)
    except OSError as error:
        raise WrongUsage(f"{path}: this recipe file cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise WrongUsage(f"{path}: not a YAML recipe ({error})") from None
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise WrongUsage(f"{path}: not a recipe: it is not a mapping of keys to values")
    below = data.pop("extends", None)
    if below is None:
        return data
    if not isinstance(below, str) or Path(below).suffix not in (".yaml", ".yml"):
        raise WrongUsage(f"{path}: extends: give the path of a .yaml file, like ../cpu.yaml")
    return _merged(_read(path.parent / below, (*above, real)), data)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return `below` updated by `above`, key by key; a block with another name replaces the whole block."""
    merged = dict(below)
    for key, value in above.items():
        old = below.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and value.get("name", old.get("name")) == old.get("name"):
            merged[key] = _merged(old, value)
        else:
            merged[key] = value
    return merged


def parse_recipe(data: dict[str, Any], origin: str) -> Recipe:
    """Return the recipe that plain data describes.

    Args:
        data: keys and values, as read from YAML or JSON.
        origin: where the data comes from, named in errors.

    Raises:
        WrongUsage: a key is unknown or a value invalid.
    """
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        keys = [str(part) for part in first["loc"] if part not in (*OBJECTIVES.own, "other")]
        if first["type"] == "extra_forbidden":
            near = ".".join([*keys[:-1], str(nearest(keys[-1], _fields(keys[:-1], data)))])
            raise WrongUsage(f"{origin}: unknown key '{'.'.join(keys)}'; the nearest known key is '{near}'") from None
        message = first["msg"].removeprefix("Value error, ")
        raise WrongUsage(": ".join(filter(None, [origin, ".".join(keys), message]))) from None


def _set(data: dict[str, Any], key: str, value: Any) -> None:
    """Set the value of a dotted key, like "train.lr", in nested blocks.

    Raises:
        WrongUsage: the key is nested too deeply, or a part of it holds a value instead of a block.
    """
    # YAML 1.1 reads 1e-4 as text, although a number is meant.
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


def _fields(block: list[str], data: dict[str, Any]) -> list[str]:
    """Return the keys that a block of the recipe may have; `block` is its path of keys."""
    model: Any = Recipe
    for part in block:
        objective = part == "objective"
        model = OBJECTIVES[data[part]["name"]].config if objective else model.model_fields[part].annotation
    return list(model.model_fields)
