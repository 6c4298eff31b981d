"""Each term of the losses by hand, or by the library it claims to equal."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from raylift.config.recipe import PairedObjectiveConfig, PaperObjectiveConfig
from raylift.evaluation.metrics import ssim
from raylift.geometry import Geometry, View, VolumeGrid
from raylift.losses import GeneratorOutput, PairedObjective, PaperObjective, Setting, structural_similarity
from raylift.networks.potential import CompactPotential, PaperPotential

VIEWS = (View(0.0), View(90.0))
GRID = VolumeGrid.cube((0, 0, 0), 160.0, 32)  # 5 mm
# Its detector sees the cube whole at every angle: the diagonal is 226 mm.
PARALLEL = Geometry(1600.0, 1800.0, 256.0, parallel=True)


def paired(**weights: float) -> PairedObjective:
    return PairedObjective(PairedObjectiveConfig(name="paired", **weights), Setting(GRID, PARALLEL, VIEWS, 0))


def volumes(count: int, seed: int, edge: int = 32) -> Tensor:
    return torch.rand(count, 1, edge, edge, edge, generator=torch.Generator().manual_seed(seed))


def made(fake: Tensor, real: Tensor, views: tuple[View, ...] = VIEWS) -> GeneratorOutput:
    return GeneratorOutput(fake, real, torch.zeros(len(fake), len(views), *fake.shape[2:]), views, PARALLEL)


def constant(value: float, count: int = 1) -> Tensor:
    return torch.full((count, 1, *GRID.shape), value)


class TestPaper:
    def objective(self, **settings: float) -> PaperObjective:
        torch.manual_seed(0)
        setting = Setting(VolumeGrid.cube((0, 0, 0), 320, 16), PARALLEL, VIEWS, 0)
        return PaperObjective(PaperObjectiveConfig(name="paper", **settings), setting)

    def test_terms_of_g(self) -> None:
        # λ_c · S − λ_d · d: for a single volume S is half the squared distance of the normalised features.
        objective = self.objective(lambda_c=0.3, lambda_d=0.7)
        fake, real = volumes(1, 1, 16), volumes(1, 2, 16)
        distance = 0.0
        for a, b in zip(objective.f(fake), objective.f(real), strict=True):
            a, b = (m / m.square().sum(1, keepdim=True).sqrt() for m in (a, b))
            distance += float((a - b).double().square().sum() / 2)
        terms = objective.generator_terms(made(fake, real, VIEWS))
        assert set(terms) == {"sinkhorn", "potential"}
        assert float(terms["sinkhorn"].detach()) == pytest.approx(0.3 * distance, rel=1e-4)
        assert float(terms["potential"].detach()) == pytest.approx(-0.7 * float(objective.d(fake).detach()), rel=1e-5)

    def test_price_is_the_mean_of_the_batch(self) -> None:
        objective, fake = self.objective(), volumes(3, 1, 16)
        prices = [float(objective.d(volume[None]).detach()) for volume in fake]
        terms = objective.generator_terms(made(fake, volumes(3, 2, 16), VIEWS))
        assert float(terms["potential"].detach()) == pytest.approx(-0.1 * sum(prices) / 3, rel=1e-4)

    def test_loss_of_d(self) -> None:
        # d(g(V_cat)) − d(V), times 100: minimising it makes fakes cheap and real volumes dear.
        objective, fake, real = self.objective(), volumes(2, 1, 16), volumes(2, 2, 16)
        loss = objective.discriminator_loss(made(fake, real))
        price = [float(objective.d(batch).mean().detach()) for batch in (fake, real)]
        assert float(loss.detach()) == pytest.approx(100 * (price[0] - price[1]), rel=1e-3)
        optimizer = torch.optim.SGD(objective.d.parameters(), 1e-6)
        loss.backward()
        optimizer.step()
        after = [float(objective.d(batch).mean().detach()) for batch in (fake, real)]
        assert after[0] - after[1] < price[0] - price[1]

    def test_published_weights(self) -> None:
        settings = PaperObjectiveConfig(name="paper")
        assert (settings.lambda_c, settings.lambda_d, settings.potential_loss) == (0.1, 0.1, 100)
        assert (settings.blur, self.objective().g_updates) == (0.05, 10)

    def test_the_papers_potential(self) -> None:
        objective = self.objective(potential="paper")
        assert isinstance(objective.d, PaperPotential)
        assert isinstance(self.objective().d, CompactPotential)

    def test_parts_of_the_divergence(self) -> None:
        """Layer by layer they add up; without de-biasing, far volumes are as far but for ε."""
        fake, real = volumes(3, 1, 16), volumes(3, 2, 16)

        def divergence(**settings: Any) -> float:
            terms = self.objective(lambda_d=0, **settings).generator_terms(made(fake, real))
            return float(terms["sinkhorn"].detach())

        parts = [divergence(layers=(k,)) for k in (1, 2, 3, 4)]
        assert min(parts) > 0
        assert sum(parts) == pytest.approx(divergence(), rel=1e-4)
        assert divergence(debias=False) == pytest.approx(divergence(), rel=0.01)
        voxels = divergence(features=False)
        assert 0 < voxels != divergence(features=False, debias=False) == pytest.approx(voxels, rel=0.01)
        assert divergence(features_bias=False) != pytest.approx(divergence(), rel=0.01)

    def test_with_pairing_the_order_of_a_batch_matters(self) -> None:
        fake, real = volumes(3, 1, 16), volumes(3, 2, 16)
        objective = self.objective(lambda_d=0, lambda_c=1, pairing=True)

        def divergence(a: Tensor, b: Tensor) -> float:
            return float(objective.generator_terms(made(a, b))["sinkhorn"].detach())

        singly = [divergence(fake[k : k + 1], real[k : k + 1]) for k in range(3)]
        assert divergence(fake, real) == pytest.approx(sum(singly) / 3, rel=1e-4)
        assert divergence(real, real) == pytest.approx(0, abs=1e-6)
        assert divergence(real[[1, 2, 0]], real) > 1

    def test_f_is_frozen_and_in_the_state(self) -> None:
        objective = self.objective()
        fake = volumes(2, 1, 16).requires_grad_()
        sum(objective.generator_terms(made(fake, volumes(2, 2, 16), VIEWS)).values()).backward()
        objective.discriminator_loss(made(fake, volumes(2, 2, 16))).backward()
        assert fake.grad is not None
        assert fake.grad.isfinite().all()
        assert all(p.grad is None and not p.requires_grad for p in objective.f.parameters())
        assert {name.split(".")[0] for name in objective.state_dict()} == {"f", "d"}

    def test_without_d(self) -> None:
        objective = self.objective(lambda_d=0.0)
        made_of = made(volumes(2, 1, 16), volumes(2, 2, 16))
        assert (objective.d, objective.d_updates, objective.g_updates) == (None, 0, 10)
        assert set(objective.generator_terms(made_of)) == {"sinkhorn"}
        assert objective.discriminator_loss(made_of) is None

    def test_without_f(self) -> None:
        # For a single volume S is half the squared distance of the voxels.
        objective = self.objective(features=False, lambda_c=0.3)
        fake, real = volumes(1, 1, 16), volumes(1, 2, 16)
        expected = 0.3 * float((fake - real).square().sum()) / 2
        terms = objective.generator_terms(made(fake, real))
        assert objective.f is None
        assert float(terms["sinkhorn"].detach()) == pytest.approx(expected, rel=1e-4)


class TestPaired:
    def test_a_constant_offset(self) -> None:
        terms = paired(l1=2.0, l2=3.0).generator_terms(made(constant(0.4), constant(0.3), VIEWS))
        assert float(terms["l1"]) == pytest.approx(2 * 0.1, rel=1e-5)
        assert float(terms["l2"]) == pytest.approx(3 * 0.01, rel=1e-5)

    def test_ssim_of_two_constants(self) -> None:
        # No variance: SSIM = (2ab + C1) / (a² + b² + C1) with C1 = 0.01².
        terms = paired(ssim=0.5).generator_terms(made(constant(0.4), constant(0.3), VIEWS))
        similarity = (2 * 0.4 * 0.3 + 1e-4) / (0.16 + 0.09 + 1e-4)
        assert float(terms["ssim"]) == pytest.approx(0.5 * (1 - similarity), rel=1e-3)

    def test_uncertainty_is_least_where_it_is_the_difference(self) -> None:
        difference, uncertainty = volumes(1, 1), volumes(1, 2).add(0.1).requires_grad_()
        fake = difference.clone().requires_grad_()
        translation = replace(made(fake, torch.zeros_like(fake)), uncertainty=uncertainty)
        terms = paired(uncertainty=0.5).generator_terms(translation)
        expected = 0.5 * (uncertainty.log() + difference / uncertainty).mean()
        assert float(terms["uncertainty"]) == pytest.approx(float(expected), rel=1e-5)
        slope, of_fake = torch.autograd.grad(terms["uncertainty"], [uncertainty, fake], allow_unused=True)
        assert torch.equal(slope > 0, uncertainty > difference)
        assert of_fake is None
        assert "uncertainty" not in paired(uncertainty=0.5).generator_terms(made(fake, fake))

    def test_features_are_compared_pair_by_pair(self) -> None:
        objective = paired(l1=0.0, features=2.0)
        fake, real = volumes(2, 1), volumes(2, 2)
        assert objective.f is not None
        expected = 0.0
        for a, b in zip(objective.f(fake), objective.f(real), strict=True):
            a, b = (m / m.square().sum(1, keepdim=True).sqrt() for m in (a, b))
            expected += 2 * float((a - b).square().mean())
        terms = objective.generator_terms(made(fake, real))
        assert set(terms) == {"features"}
        assert float(terms["features"]) == pytest.approx(expected, rel=1e-4)
        swapped = objective.generator_terms(made(fake, real.flip(0)))
        assert float(swapped["features"]) != pytest.approx(expected, rel=1e-3)

    def test_absent_where_the_weight_is_0(self) -> None:
        assert set(paired().generator_terms(made(constant(0.4), constant(0.3), VIEWS))) == {"l1"}
        every = {"l1", "l2", "ssim", "features", "projection", "transport", "patches"}
        terms = paired(**dict.fromkeys(every, 1.0)).generator_terms(made(constant(0.4), constant(0.3), VIEWS))
        assert set(terms) == every

    def test_equal_volumes_cost_nothing(self) -> None:
        every = dict.fromkeys(("l1", "l2", "ssim", "features", "projection", "transport", "patches"), 1.0)
        terms = paired(**every).generator_terms(made(volumes(1, 1), volumes(1, 1), VIEWS))
        assert [float(term) for term in terms.values()] == pytest.approx([0] * 7, abs=2e-5)

    @pytest.mark.parametrize("offset", [0.1, -0.1])
    def test_projection_of_a_constant_offset(self, offset: float) -> None:
        # μ = 0.02 mm⁻¹ · 2 · 0.1 in a 160 mm cube. Parallel rays: the line integrals over the 256 mm detector add up
        # to μ · 160³ at any angle, so their mean is μ · 160³ / 256²; 100 mm of water are 2.
        expected = 0.02 * 2 * 0.1 * 160**3 / 256**2 / 2
        torch.manual_seed(3)
        terms = [
            paired(projection=0.5).generator_terms(made(constant(0.4 + offset), constant(0.4), VIEWS))["projection"]
            for _ in range(3)
        ]
        assert [float(term) for term in terms] == pytest.approx([0.5 * expected] * 3, rel=0.03)

    def test_the_extra_angle_sees_what_the_views_do_not(self) -> None:
        # Tissue moved along y leaves parallel projections at 0° alone, so only the second, random angle costs.
        fake, real = constant(0.0), constant(0.0)
        fake[..., 12:20, 4:8, 12:20] = 0.5
        real[..., 12:20, 20:24, 12:20] = 0.5
        objective = paired(projection=1.0)
        torch.manual_seed(0)
        costs = [float(objective.generator_terms(made(fake, real, (View(0.0),)))["projection"]) for _ in range(12)]
        # At 90° both blocks of 40 × 20 × 40 mm show: 2 · μ V / 256² / 2 with μ = 0.02, halved as one of two views.
        most = 0.02 * 40 * 20 * 40 / 256**2 / 2
        assert max(costs) == pytest.approx(most, rel=0.1)
        assert min(costs) < 0.8 * most

    def test_projection_draws_its_extra_angle_from_the_global_seed(self) -> None:
        # What makes a resumed run see the same angles: the state of torch's generator is in the checkpoint.
        objective, fake, real = paired(projection=1.0), volumes(1, 1), volumes(1, 2)

        def draws(seed: int) -> list[float]:
            torch.manual_seed(seed)
            return [float(objective.generator_terms(made(fake, real, VIEWS))["projection"]) for _ in range(4)]

        assert draws(1) == draws(1)
        assert len(set(draws(1))) > 1

    def test_gradients_are_finite_and_downhill(self) -> None:
        every = dict.fromkeys(("l1", "l2", "ssim", "features", "projection", "transport", "patches"), 1.0)
        objective = paired(**every)
        fake, real = volumes(2, 1).requires_grad_(), volumes(2, 2)
        torch.manual_seed(0)
        terms = objective.generator_terms(made(fake, real, VIEWS))
        for name, term in terms.items():
            (gradient,) = torch.autograd.grad(term, fake, retain_graph=True)
            assert gradient.isfinite().all(), name
            assert gradient.abs().sum() > 0, name
            # A small step against the gradient lowers the term by what the gradient says.
            step = 1e-3 / float(gradient.abs().max())
            torch.manual_seed(0)
            after = objective.generator_terms(made((fake - step * gradient).detach(), real, VIEWS))[name]
            assert float((term - after).detach()) == pytest.approx(step * float(gradient.square().sum()), rel=0.2), name

    def test_has_no_potential(self) -> None:
        assert paired().d is None
        assert paired().discriminator_loss(made(constant(0.4), constant(0.3))) is None


def test_structural_similarity_is_what_volumes_are_scored_by() -> None:
    real = torch.rand(2, 1, 12, 15, 18, generator=torch.Generator().manual_seed(2))
    fake = 0.6 * real + 0.4 * torch.rand(real.shape, generator=torch.Generator().manual_seed(1))
    expected = np.mean([ssim(b[0].numpy(), a[0].numpy()) for a, b in zip(fake, real, strict=True)])
    assert 0.05 < expected < 0.95
    assert float(structural_similarity(fake, real)) == pytest.approx(expected, abs=1e-5)
