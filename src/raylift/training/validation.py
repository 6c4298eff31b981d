"""How good a training is while it goes on: scores of held-out cases and of cases trained on, and pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from raylift.config.recipe import Recipe
from raylift.data.dataset import PreparedDataset
from raylift.evaluation.scores import score
from raylift.images.hounsfield import hu_to_normalised, normalised_to_hu
from raylift.images.volume import Volume
from raylift.model.lifted_network import LiftedNetwork
from raylift.plots.montages import montage
from raylift.training.metrics import RunningMeans

MOST_CASES = 100  # that are scored, evenly chosen from those held out


@dataclass
class ScoredCases:
    """Cases that are scored, read once: X-rays (B, N, rows, columns), truth (B, D, H, W) in [0, 1]."""

    names: list[str]
    xrays: torch.Tensor
    truth: np.ndarray

    @classmethod
    def read(cls, recipe: Recipe, dataset: PreparedDataset) -> dict[str, ScoredCases]:
        """Return the held-out cases, `validation`, and as many of those trained on, `seen`; {} if none is held out."""
        split = recipe.data.split
        if split == "all" or not dataset.splits.get("validation"):
            return {}
        most, scored = MOST_CASES, {}
        for name, cases in (("validation", dataset.cases("validation")), ("seen", dataset.cases(split))):
            chosen = cases[:: math.ceil(len(cases) / most)]
            indices = dataset.view_indices(recipe.view_list)
            xrays = torch.from_numpy(np.stack([case.xrays[indices] for case in chosen]))
            truth = np.stack([hu_to_normalised(case.truth.array.astype(np.float32)) for case in chosen])
            scored[name] = cls([case.name for case in chosen], xrays, truth)
            most = len(chosen)
        return scored


class Validator:
    """Scores and draws what g makes of the recipe's stored X-rays.

    Args:
        recipe: of the training.
        dataset: prepared scans, which hold the recipe's views.
        model: g with its lift.
        average: g's averaged weights, of the same network.
    """

    def __init__(self, recipe: Recipe, dataset: PreparedDataset, model: LiftedNetwork, average: nn.Module) -> None:
        self.recipe, self.dataset, self.model, self.average = recipe, dataset, model, average
        dataset.view_indices(recipe.view_list)  # says which views are missing, before any step
        self.scored = ScoredCases.read(recipe, dataset)

    def scores(self) -> dict[str, float]:
        """Return means of the `hu` protocol over each of `scored`, for the average and, as `…_of_g`, for g itself.

        The average lags behind while g still learns fast.
        """
        numbers: dict[str, float] = {}
        for ending, network in (("", None), ("_of_g", self.model.network)):
            for name in self.scored:
                numbers |= {f"{name}/{key}{ending}": value for key, value in self.score(name, network).items()}
        return numbers

    def score(self, name: str, network: nn.Module | None = None) -> dict[str, float]:
        """Return means of the `hu` protocol over the cases `name`, for a network or g's average."""
        means, cases = RunningMeans(), self.scored[name]
        for prediction, truth in zip(self.predict(cases.xrays, network), cases.truth, strict=True):
            means.add(score(prediction, truth, "hu"))
        return means.pop()

    @torch.no_grad()
    def predict(self, xrays: torch.Tensor, network: nn.Module | None = None) -> np.ndarray:
        """Return volumes (B, D, H, W) in [0, 1] for X-rays (B, N, rows, columns), by a network or g's average.

        The network is left as it was, learning or not.
        """
        network = network or self.average
        learning, device = network.training, next(network.parameters()).device
        network.eval()
        volumes = []
        for images in xrays:
            seen = self.model.preprocess(images[None].to(device))
            out = self.model.translate(network, seen, None, self.model.iterations)
            assert out is not None
            volumes.append(out[0, 0])
        network.train(learning)
        return torch.stack(volumes).float().clamp(0, 1).cpu().numpy()

    def preview(self, folder: Path, step: int) -> None:
        """Draw one held-out case, of a training pair where nothing is held out, by g's average and by g."""
        if self.scored:
            xrays, truth = self.scored["validation"].xrays[:1], self.scored["validation"].truth[0]
        else:
            case = self.dataset.cases(self.recipe.data.split)[0]
            indices = self.dataset.view_indices(self.recipe.view_list)
            xrays = torch.from_numpy(case.xrays[indices])[None]
            truth = hu_to_normalised(case.truth.array.astype(np.float32))
        for ending, network in (("", None), ("-g", self.model.network)):
            montage(
                Volume(normalised_to_hu(truth), self.model.grid),
                Volume(normalised_to_hu(self.predict(xrays, network)[0]), self.model.grid),
                [(v.name, x.numpy()) for v, x in zip(self.recipe.view_list, xrays[0], strict=True)],
                folder / f"step-{step:07d}{ending}.png",
                f"step {step}",
            )
