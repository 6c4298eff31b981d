"""What a recipe may say, and how a wrong one is answered."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from raylift.config.files import load_recipe
from raylift.errors import WrongUsage
from raylift.geometry import View
from repository import ROOT

RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A recipe of the paired objective with little more than what is needed."""
    file = tmp_path / "small.yaml"
    content = {"name": "small", "objective": {"name": "paired", "l1": 1}, "train": {"steps": 7}}
    file.write_text(yaml.safe_dump(content))
    return file


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(WrongUsage) as caught:
        load_recipe(path, list(overrides))
    return str(caught.value)


def test_there_are_recipes() -> None:
    assert "cpu.yaml" in [recipe.name for recipe in RECIPES]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_loads_and_survives_its_own_dump(recipe: Path, tmp_path: Path) -> None:
    loaded = load_recipe(recipe)
    assert loaded.train.steps > 0
    assert len(loaded.view_list) == len(loaded.views)
    copy = tmp_path / "copy.yaml"
    copy.write_text(yaml.safe_dump(loaded.model_dump(mode="json")))
    assert load_recipe(copy) == loaded


def test_the_cpu_recipe_says_what_its_file_says() -> None:
    file = next(recipe for recipe in RECIPES if recipe.name == "cpu.yaml")
    said, loaded = yaml.safe_load(file.read_text()), load_recipe(file)
    assert loaded.train.lr == float(said["train"]["lr"])
    assert loaded.data.augmentation.rotation == said["data"]["augmentation"]["rotation"]
    assert loaded.network.name == said["network"]["name"]


@pytest.mark.parametrize(
    ("override", "place", "value"),
    [
        ("train.lr=1e-4", "train.lr", 1e-4),  # YAML 1.1 takes this for text
        ("train.lr=2.5e-3", "train.lr", 2.5e-3),
        ("train.steps=12", "train.steps", 12),
        ("train.clip_norm=null", "train.clip_norm", None),
        ("data.opposite_views=false", "data.opposite_views", False),
        ("data.augmentation.rotation=7", "data.augmentation.rotation", 7.0),
        ("objective.ssim=0.25", "objective.ssim", 0.25),
        ("train.betas=[0.5, 0.999]", "train.betas", (0.5, 0.999)),
        ("lift=repeat", "lift", "repeat"),
    ],
)
def test_overrides(path: Path, override: str, place: str, value: Any) -> None:
    found: Any = load_recipe(path, [override])
    for part in place.split("."):
        found = getattr(found, part)
    assert found == value


def test_the_last_override_counts(path: Path) -> None:
    assert load_recipe(path, ["train.steps=1", "train.steps=2"]).train.steps == 2


def test_overriding_the_objective(path: Path) -> None:
    recipe = load_recipe(path, ["objective={name: paper, g_updates: 3}"])
    assert (recipe.objective.name, recipe.objective.g_updates) == ("paper", 3)


@pytest.mark.parametrize(
    ("override", "unknown", "nearest"),
    [
        ("train.stepz=3", "train.stepz", "train.steps"),
        ("train.learning_rate=3", "train.learning_rate", "train."),
        ("data.augmentation.rotatoin=3", "data.augmentation.rotatoin", "data.augmentation.rotation"),
        ("network.feature=12", "network.feature", "network.feature_size"),
        ("objective.transprot=1", "objective.transprot", "objective.transport"),
        ("lfit=repeat", "lfit", "'lift'"),
    ],
)
def test_unknown_keys_name_the_nearest(path: Path, override: str, unknown: str, nearest: str) -> None:
    line = refused(path, override)
    assert str(path) in line
    assert f"unknown key '{unknown}'" in line
    assert nearest in line.split("nearest")[1]


def test_keys_of_the_other_objective_are_unknown(path: Path) -> None:
    assert "'objective.g_updates'" in refused(path, "objective.g_updates=3")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.log_every=true", "log_every: true is neither a number nor a name"),
        ("data.augmentation.truncation=false", "truncation: false is neither a number nor a name"),
        ("views=[1e308]", "is no view"),
        ("train.steps=0", "train.steps"),
        ("train.steps=many", "train.steps"),
        ("train.lr=-1", "train.lr"),
        ("train.lr=0", "train.lr"),
        ("train.precision=8", "train.precision"),
        ("train.ema_decay=1.5", "train.ema_decay"),
        ("data.pairs=both", "data.pairs"),
        ("train=5", "train"),
        ("objective.name=payred", "objective"),
        ("train.betas=[0.9, 1]", "train.betas"),
        ("views=[]", "at least one view"),
        ("views=[0, frontal]", "'frontal' is no view"),
        ("views=[0, 360]", "a view is listed twice"),
        ("lift=repaet", "the nearest is 'repeat'"),
        ("network.name=swin-unet", "the nearest is 'swin_unetr'"),
        ("network.feature_size=16", "network.feature_size: 16 is not a multiple of 12"),
        ("network={name: unet, checkpointing: true}", "checkpointing is for swin_unetr, not unet"),
    ],
)
def test_wrong_values_are_named(path: Path, override: str, expected: str) -> None:
    line = refused(path, override)
    assert expected in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "override", ["train.steps", "name.short=3", "train.lr=[1"], ids=["no value", "keys of a value", "not YAML"]
)
def test_malformed_overrides(path: Path, override: str) -> None:
    assert "--set" in refused(path, override)


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "a: [1\n", "name: x\n"])
def test_files_that_are_no_recipe(tmp_path: Path, content: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(content)
    assert str(file) in refused(file)


def test_missing_file(tmp_path: Path) -> None:
    assert "no such recipe" in refused(tmp_path / "none.yaml")


def test_a_picture_is_no_recipe(tmp_path: Path) -> None:
    file = tmp_path / "picture.yaml"
    file.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    assert str(file) in refused(file)


def test_views_by_angle_and_name(path: Path) -> None:
    recipe = load_recipe(path, ["views=[45, pa, lateral-left, -90]"])
    assert recipe.view_list == (View(45.0), View(180.0, True), View(270.0, True), View(270.0))


def test_a_recipe_does_not_change(path: Path) -> None:
    recipe = load_recipe(path)
    with pytest.raises(ValueError, match="frozen"):
        recipe.train.steps = 3
