"""The learning rate, and that the optimizers get it."""

import math
from pathlib import Path

import pytest
import torch
from tiny_recipes import PAPER, recipe

from raylift.config.recipe import TrainConfig
from raylift.data.dataset import PreparedDataset
from raylift.training.run import Run
from raylift.training.schedule import rate_factor, schedule


class TestLearningRate:
    def test_warm_up_is_never_0(self) -> None:
        part = TrainConfig(steps=100, warmup=4, decay_from=50)
        assert [rate_factor(step, part) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])

    def test_linear_as_in_the_paper(self) -> None:
        # 5,000 steps, falling from step 1,500.
        part = TrainConfig(steps=5000, decay_from=1500)
        expected = {0: 1, 1499: 1, 1500: 1, 3250: 0.5, 4650: 0.1, 4999: 1 / 3500}
        assert {step: rate_factor(step, part) for step in expected} == pytest.approx(expected)

    def test_cosine(self) -> None:
        part = TrainConfig(steps=100, decay="cosine")
        expected = {
            0: 1,
            25: 0.5 + math.sqrt(0.125),
            50: 0.5,
            75: 0.5 - math.sqrt(0.125),
            99: math.sin(math.pi / 200) ** 2,
        }
        assert {step: rate_factor(step, part) for step in expected} == pytest.approx(expected)

    @pytest.mark.parametrize("decay", ["linear", "cosine"])
    def test_always_positive(self, decay: str) -> None:
        part = TrainConfig(steps=30, warmup=5, decay_from=10, decay=decay)
        assert min(rate_factor(step, part) for step in range(30)) > 0

    def test_is_what_the_optimizers_get(self, tiny: Path, tmp_path: Path) -> None:
        run = Run(recipe(PAPER, d_lr=0.5, steps=3), PreparedDataset(tiny), tmp_path / "run")
        rates: list[tuple[str, float]] = []
        for name, optimizer in (("g", run.g_optimizer), ("d", run.d_optimizer)):
            optimizer.optimizer.register_step_pre_hook(
                lambda inner, *_, name=name: rates.append((name, inner.param_groups[0]["lr"]))
            )
        run.train()
        # Two steps of warm-up, then step 2 of 3 on the straight line from 1 at 0 to 0 at 3.
        expected = [1 / 3, 2 / 3, 1 / 3]
        assert [rate for name, rate in rates if name == "d"] == pytest.approx([0.5 * factor for factor in expected])
        of_g = [0.01 * factor for factor in expected for _ in range(run.objective.g_updates)]
        assert [rate for name, rate in rates if name == "g"] == pytest.approx(of_g)

    def test_goes_on_where_a_run_was_interrupted(self) -> None:
        train = TrainConfig(steps=9, warmup=3, decay_from=5)
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], 0.02)
        for step in (0, 1, 4, 8):
            assert schedule(optimizer, train, step).get_last_lr() == pytest.approx([0.02 * rate_factor(step, train)])
