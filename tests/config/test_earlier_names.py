"""Recipes and weights of earlier versions are read, under the names of today."""

import json
from pathlib import Path

import pytest
import yaml

from raylift.config import load_recipe
from raylift.config.earlier_names import EARLIER_FILES, existing_file, modern_weights_info
from raylift.model.weights import EMBEDDED, load_weights


def test_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "before.yaml"
    network = {"name": "residual_unet", "feature_size": 4, "passes": 2, "doubt": True}
    before = {
        "name": "before",
        "network": network,
        "objective": {"name": "paired", "doubt": 0.3},
        "train": {"steps": 1},
    }
    path.write_text(yaml.safe_dump(before))
    recipe = load_recipe(path)
    assert (recipe.network.iterations, recipe.network.uncertainty) == (2, True)
    assert recipe.objective.model_dump()["uncertainty"] == 0.3


@pytest.mark.parametrize("before", [{"sinkhorn": 0.2, "potential": 0.3}, {"potential": 0.3, "lambda_c": 0.2}])
def test_the_papers_objective_had_an_f_without_bias(tmp_path: Path, before: dict[str, float]) -> None:
    path = tmp_path / "before.yaml"
    path.write_text(yaml.safe_dump({"name": "p", "objective": {"name": "paper", **before}, "train": {"steps": 1}}))
    objective = load_recipe(path).objective.model_dump()
    assert (objective["lambda_c"], objective["lambda_d"], objective["features_bias"]) == (0.2, 0.3, False)
    assert objective["potential"] == "compact"


def test_weights(tmp_path: Path) -> None:
    """The shipped ones, written as an earlier version wrote them."""
    text = (EMBEDDED / "chest-64" / "weights.json").read_text()
    for now, before in (("uncertainty", "doubt"), ("ood_sha256", "familiarity_sha256"), ("init_from", "begun_with"),
                        ("iterations", "passes")):  # fmt: skip
        assert f'"{now}"' in text
        text = text.replace(f'"{now}"', f'"{before}"')
    (tmp_path / "weights.json").write_text(text)
    for name in ("weights.safetensors", "ood.safetensors"):
        there = tmp_path / EARLIER_FILES.get(name, name)
        there.write_bytes((EMBEDDED / "chest-64" / name).read_bytes())
    before_weights, now_weights = load_weights(tmp_path), load_weights(EMBEDDED / "chest-64")
    assert before_weights.info == now_weights.info
    assert before_weights.ood_detector is not None


def test_names_of_today_win(tmp_path: Path) -> None:
    assert modern_weights_info({"uncertainty": 1, "doubt": 2}) == {"uncertainty": 1, "doubt": 2}
    assert existing_file(tmp_path / "init-from.json") == tmp_path / "init-from.json"  # of neither
    for name in ("init-from.json", "begun-with.json"):
        (tmp_path / name).write_text(json.dumps({}))
    assert existing_file(tmp_path / "init-from.json") == tmp_path / "init-from.json"
    (tmp_path / "init-from.json").unlink()
    assert existing_file(tmp_path / "init-from.json") == tmp_path / "begun-with.json"
