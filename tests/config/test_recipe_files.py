"""Recipes by name, on top of one another, and how a missing one is answered."""

from pathlib import Path

import pytest

from raylift.config.files import find_recipe, load_recipe, recipe_names
from raylift.errors import WrongUsage

BASE = "name: base\nlift: repeat\nobjective: {name: paired, l1: 1, ssim: 0.2}\ntrain: {steps: 7, lr: 0.5}\n"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def test_a_recipe_extends_another_key_by_key(tmp_path: Path) -> None:
    write(tmp_path, "base", BASE)
    path = write(tmp_path, "above", "extends: base.yaml\nname: above\ntrain: {steps: 9}\nobjective: {l2: 3}\n")
    recipe = load_recipe(path)
    assert (recipe.name, recipe.lift, recipe.train.steps, recipe.train.lr) == ("above", "repeat", 9, 0.5)
    assert recipe.objective.model_dump(exclude_defaults=True) == {"name": "paired", "ssim": 0.2, "l2": 3}


def test_a_block_of_another_name_replaces_the_block(tmp_path: Path) -> None:
    write(tmp_path, "base", BASE)
    path = write(tmp_path, "above", "extends: base.yaml\nobjective: {name: paper, blur: 0.1}\n")
    assert load_recipe(path).objective.model_dump(exclude_defaults=True) == {"name": "paper", "blur": 0.1}


def test_changes_come_last(tmp_path: Path) -> None:
    write(tmp_path, "base", BASE)
    path = write(tmp_path, "above", "extends: base.yaml\ntrain: {steps: 9}\n")
    assert load_recipe(path, ["train.steps=11"]).train.steps == 11


def test_circles_and_gaps(tmp_path: Path) -> None:
    write(tmp_path, "a", "extends: b.yaml\n")
    with pytest.raises(WrongUsage, match="extends itself"):
        load_recipe(write(tmp_path, "b", "extends: a.yaml\n"))
    with pytest.raises(WrongUsage, match=r"nowhere\.yaml"):
        load_recipe(write(tmp_path, "c", "extends: nowhere.yaml\n"))


def test_recipes_that_come_with_raylift_have_names() -> None:
    assert {"cpu", "paper", "baselines/x2ct-gan", "ablations/l1"} <= set(recipe_names())
    assert load_recipe("baselines/x2ct-gan").network.name == "x2ct"
    assert find_recipe("cpu").read_text() == find_recipe(find_recipe("cpu")).read_text()


def test_a_folder_of_the_same_name_hides_no_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_recipe("cpu").name == "cpu"


@pytest.mark.parametrize(
    ("wanted", "nearest"),
    [("cpuu", "cpu"), ("recipes/papers.yaml", "paper"), ("baselines/x2ct-gann.yaml", "baselines/x2ct-gan")],
)
def test_a_recipe_that_does_not_exist(wanted: str, nearest: str) -> None:
    with pytest.raises(WrongUsage, match=f"no such recipe; the nearest that comes with Raylift is '{nearest}'"):
        load_recipe(wanted)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (["network={name: x2ct, feature_size: 8}"], "takes images: give it the lift 'image'"),
        (["lift=image"], "takes volume: give it a lift other than 'image'"),
        (["objective={name: x2ct}"], "for networks that take images"),
        (["network={name: x2ct, feature_size: 8}", "lift=image", "views=[45]"], "views at right angles"),
        (
            ["network={name: x2ct, feature_size: 8}", "lift=image", "objective={name: x2ct, class_maps: 1}"],
            "ccx_raynet needs the objective x2ct with class_maps; no other",
        ),
        (["network={name: ccx_raynet, feature_size: 8}", "lift=image"], r"small\.yaml: the network ccx_raynet needs"),
        (["network={name: segresnet, feature_size: 12}"], "not a multiple of 8"),
        (["objective={name: paired, l1: 0}"], "every weight is 0"),
    ],
)
def test_parts_that_do_not_fit(tmp_path: Path, changes: list[str], complaint: str) -> None:
    path = write(tmp_path, "small", "name: small\nobjective: {name: paired}\ntrain: {steps: 1}\n")
    with pytest.raises(WrongUsage, match=complaint):
        load_recipe(path, changes)
