"""Names used by earlier versions, so that their recipes and weights can still be read. No other module uses them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

NETWORK = {"passes": "iterations", "doubt": "uncertainty"}
OBJECTIVE = {"sinkhorn": "lambda_c", "doubt": "uncertainty"}
WEIGHTS = {"doubt": "uncertainty", "familiarity_sha256": "ood_sha256"}
TRAINING = {"begun_with": "init_from"}
# Earlier names of files, by the current name.
EARLIER_FILES = {"ood.safetensors": "familiarity.safetensors", "init-from.json": "begun-with.json"}


def modern_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe with the current names."""
    renamed = dict(recipe)
    for block, names in (("network", NETWORK), ("objective", OBJECTIVE)):
        if isinstance(renamed.get(block), dict):
            renamed[block] = _renamed(renamed[block], names)
    objective = recipe.get("objective")
    if isinstance(objective, dict) and objective.get("name") == "paper":
        renamed["objective"] = _modern_paper(renamed["objective"], "sinkhorn" in objective)
    return renamed


def modern_weights_info(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of `weights.json` with the current names; its recipe is left as it is."""
    renamed = _renamed(info, WEIGHTS)
    if "training" in renamed:
        renamed["training"] = _renamed_throughout(renamed["training"], TRAINING)
    return renamed


def existing_file(path: Path) -> Path:
    """Return the path of a file, or the same with the earlier name if only that file exists."""
    earlier = path.with_name(EARLIER_FILES.get(path.name, path.name))
    return earlier if earlier.exists() and not path.exists() else path


def _modern_paper(objective: dict[str, Any], early: bool) -> dict[str, Any]:
    """Return the objective `paper` of an earlier version with the current names.

    In early versions, `potential` was the number λ_d, λ_c had another name, and f had no bias.

    Args:
        objective: the block, its keys already renamed.
        early: whether λ_c had its earlier name.
    """
    number = objective.get("potential")
    if isinstance(number, (int, float)) and not isinstance(number, bool):
        early, objective = True, {("lambda_d" if key == "potential" else key): v for key, v in objective.items()}
    return {"features_bias": False, **objective} if early else objective


def _renamed(block: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return a block with the keys in `names` renamed, unless it already holds the new name."""
    return {names.get(key, key) if names.get(key) not in block else key: value for key, value in block.items()}


def _renamed_throughout(value: Any, names: Mapping[str, str]) -> Any:
    """Return a value with keys renamed at all depths, since an ensemble's training holds those of its members."""
    if isinstance(value, dict):
        return {key: _renamed_throughout(part, names) for key, part in _renamed(value, names).items()}
    return [_renamed_throughout(part, names) for part in value] if isinstance(value, list) else value
