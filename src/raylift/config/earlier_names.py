"""Names of earlier versions, so that their recipes and weights are still read. Nowhere else are they known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

NETWORK = {"passes": "iterations", "doubt": "uncertainty"}
OBJECTIVE = {"sinkhorn": "lambda_c", "doubt": "uncertainty"}
WEIGHTS = {"doubt": "uncertainty", "familiarity_sha256": "ood_sha256"}
TRAINING = {"begun_with": "init_from"}
# Files, by the name of today.
FILES = {"ood.safetensors": "familiarity.safetensors", "init-from.json": "begun-with.json"}


def modern_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe under the names of today."""
    renamed = dict(recipe)
    for block, names in (("network", NETWORK), ("objective", OBJECTIVE)):
        if isinstance(renamed.get(block), dict):
            renamed[block] = _renamed(renamed[block], names)
    objective = recipe.get("objective")
    if isinstance(objective, dict) and objective.get("name") == "paper":
        renamed["objective"] = _modern_paper(renamed["objective"], "sinkhorn" in objective)
    return renamed


def modern_weights_info(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of `weights.json` under the names of today; its recipe is another matter."""
    renamed = _renamed(info, WEIGHTS)
    if "training" in renamed:
        renamed["training"] = _renamed_throughout(renamed["training"], TRAINING)
    return renamed


def existing_file(path: Path) -> Path:
    """Return a file under the name of today; under that of before, if only that is there."""
    before = path.with_name(FILES.get(path.name, path.name))
    return before if before.exists() and not path.exists() else path


def _modern_paper(objective: dict[str, Any], early: bool) -> dict[str, Any]:
    """The potential was a number, λ_d; f had no bias when it was, and λ_c another name."""
    number = objective.get("potential")
    if isinstance(number, (int, float)) and not isinstance(number, bool):
        early, objective = True, {("lambda_d" if key == "potential" else key): v for key, v in objective.items()}
    return {"features_bias": False, **objective} if early else objective


def _renamed(block: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(key, key) if names.get(key) not in block else key: value for key, value in block.items()}


def _renamed_throughout(value: Any, names: Mapping[str, str]) -> Any:
    """The members of an ensemble have trainings of their own."""
    if isinstance(value, dict):
        return {key: _renamed_throughout(part, names) for key, part in _renamed(value, names).items()}
    return [_renamed_throughout(part, names) for part in value] if isinstance(value, list) else value
