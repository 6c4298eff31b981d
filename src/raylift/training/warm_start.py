"""What a training begins with: an earlier state of its own, or the weights of another."""

from pathlib import Path

from torch import nn

from raylift.config.earlier_names import existing_file
from raylift.config.files import load_recipe
from raylift.config.recipe import Recipe
from raylift.errors import BadInput, WrongUsage
from raylift.model.weights import Weights
from raylift.model.weights_info import InitFrom
from raylift.storage.records import read_record

RECIPE = "recipe.yaml"
INIT_FROM = "init-from.json"
LEAST_SHARE = 0.1  # of a network's values that weights must hold, for a training to begin with them


def check_resumable(recipe: Recipe, folder: Path, resume: bool) -> None:
    """Check that a folder may hold a run of a recipe.

    Raises:
        WrongUsage: the folder holds a run and `resume` is not set, or one of a recipe that differs in more than its
            length and checkpointing.
    """
    if not (folder / RECIPE).exists():
        return
    if not resume:
        raise WrongUsage(f"{folder} holds a run already: go on with --resume, or name another folder")
    begun, now = load_recipe(folder / RECIPE).model_dump(), recipe.model_dump()
    begun["train"]["steps"] = now["train"]["steps"]
    begun["network"]["checkpointing"] = now["network"]["checkpointing"]
    for name, value in now.items():
        if begun[name] != value:
            raise WrongUsage(f"--resume: {folder} was begun with another '{name}': give it the same recipe")


def check_same_start(weights: Weights | None, folder: Path) -> None:
    """Check that a run which goes on is given the weights that it began with.

    Raises:
        WrongUsage: it is given others, or none, or some where it began without.
    """
    if not (folder / RECIPE).exists():
        return
    noted = existing_file(folder / INIT_FROM)
    if noted.exists():
        if weights is None or weights.info.sha256 != read_record(noted, InitFrom).sha256:
            raise WrongUsage(f"--resume: {folder} began with other weights: name them with --init-from")
    elif weights is not None:
        raise WrongUsage(f"--resume: {folder} began without other weights: leave --init-from out")


def load_matching(network: nn.Module, weights: Weights) -> InitFrom:
    """Copy into a network those tensors of weights that it has too, of the same name and shape.

    Returns:
        What `weights.json` keeps of it.

    Raises:
        BadInput: they hold less than `LEAST_SHARE` of the network.
    """
    own, theirs = network.state_dict(), weights.lifted_network.network.state_dict()
    matching = {name: tensor for name, tensor in theirs.items() if name in own and own[name].shape == tensor.shape}
    share = sum(tensor.numel() for tensor in matching.values()) / sum(tensor.numel() for tensor in own.values())
    if share < LEAST_SHARE:
        raise BadInput(weights.path, f"holds {share:.0%} of the recipe's network", "give weights of the same network")
    network.load_state_dict(own | matching)
    cases = sorted(weights.info.training.seen_cases)
    return InitFrom(sha256=weights.info.sha256, share=round(share, 3), cases=cases)
