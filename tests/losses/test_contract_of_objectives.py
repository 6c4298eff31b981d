"""What holds for every objective."""

from typing import Any

import pytest
import torch

from raylift.config import OBJECTIVES
from raylift.geometry import Geometry, View, VolumeGrid
from raylift.losses import GeneratorOutput, Objective, Setting
from raylift.plugins import load

VIEWS = (View(0.0), View(90.0))
GRID = VolumeGrid.cube((0, 0, 0), 320.0, 32)
UNIT = Geometry.preset("chest-stand", 32)
# What of its recipe an objective needs to be seen in full.
SAID: dict[str, dict[str, Any]] = {
    "wasserstein": {"l1": 1.0},
    "paired": dict.fromkeys(("l1", "l2", "ssim", "features", "projection", "transport", "patches"), 1.0),
}


@pytest.fixture(params=OBJECTIVES.own)
def objective(request: pytest.FixtureRequest) -> Objective:
    made = load(OBJECTIVES[request.param].path)
    assert made.config_class is OBJECTIVES[request.param].config
    torch.manual_seed(0)
    config = made.config_class(name=request.param, **SAID.get(request.param, {}))
    return made(config, Setting(GRID, UNIT, VIEWS, 0))  # type: ignore[no-any-return]


def output(fake: torch.Tensor) -> GeneratorOutput:
    real = torch.rand(2, 1, *GRID.shape, generator=torch.Generator().manual_seed(2))
    return GeneratorOutput(fake, real, torch.zeros(2, 2, *GRID.shape[:2]), VIEWS, UNIT)


def fake_volumes() -> torch.Tensor:
    return torch.rand(2, 1, *GRID.shape, generator=torch.Generator().manual_seed(1)).requires_grad_()


def test_terms_are_scalars_whose_sum_moves_g_and_not_d(objective: Objective) -> None:
    fake = fake_volumes()
    if objective.d is not None:
        objective.d.requires_grad_(False)
    terms = objective.generator_terms(output(fake))
    assert terms
    assert all(term.shape == () and term.isfinite() for term in terms.values())
    torch.stack(list(terms.values())).sum().backward()
    assert fake.grad is not None
    assert float(fake.grad.abs().max()) > 0
    assert all(parameter.grad is None for parameter in objective.parameters())


def test_d_learns_where_there_is_one_and_g_does_not(objective: Objective) -> None:
    assert (objective.d is not None) == (objective.d_updates > 0)
    fake = fake_volumes()
    loss = objective.discriminator_loss(output(fake).detach())
    assert (loss is not None) == (objective.d is not None)
    if loss is None or objective.d is None:
        return
    loss.backward()
    assert fake.grad is None
    assert any(float(p.grad.abs().max()) > 0 for p in objective.d.parameters() if p.grad is not None)


def test_updates_are_those_its_recipe_says(objective: Objective) -> None:
    assert objective.g_updates == objective.config.updates_of_g


def test_its_state_is_f_and_d(objective: Objective) -> None:
    assert {name.split(".")[0] for name in objective.state_dict()} <= {"f", "d"}
