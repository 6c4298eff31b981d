"""The competitors' losses by hand."""

import pytest
import torch
from torch import Tensor

from raylift.config.recipe import WassersteinObjectiveConfig, X2CTObjectiveConfig
from raylift.geometry import Geometry, View, VolumeGrid
from raylift.losses import GeneratorOutput, Setting, WassersteinObjective, X2CTObjective

VIEWS = (View(0.0), View(90.0))
EDGE = 32
GRID = VolumeGrid.cube((0, 0, 0), 160.0, EDGE)
PARALLEL = Geometry(1600.0, 1800.0, 160.0, EDGE, parallel=True)  # its detector is the cube's edge
SETTING = Setting(GRID, PARALLEL, VIEWS, 0)


def translation(fake: Tensor, real: Tensor, maps: Tensor | None = None) -> GeneratorOutput:
    return GeneratorOutput(fake, real, torch.rand(len(fake), 2, EDGE, EDGE), VIEWS, PARALLEL, maps)


def volumes(count: int, seed: int) -> Tensor:
    return torch.rand(count, 1, EDGE, EDGE, EDGE, generator=torch.Generator().manual_seed(seed))


class TestWasserstein:
    def objective(self, **settings: float) -> WassersteinObjective:
        torch.manual_seed(0)
        return WassersteinObjective(WassersteinObjectiveConfig(name="wasserstein", **settings), SETTING)

    def test_terms_of_g(self) -> None:
        objective, fake, real = self.objective(adversarial=0.5, l1=2.0), volumes(2, 0), volumes(2, 1)
        terms = objective.generator_terms(translation(fake, real))
        assert float(terms["adversarial"].detach()) == pytest.approx(-0.5 * float(objective.d(fake).mean().detach()))
        assert float(terms["l1"].detach()) == pytest.approx(2 * float((fake - real).abs().mean()), rel=1e-5)
        assert set(self.objective().generator_terms(translation(fake, real))) == {"adversarial"}

    def test_penalty_of_a_critic_of_known_slope(self) -> None:
        """d(v) = 3 · v[0] has a gradient of norm 3 everywhere: the penalty is (3 - 1)²."""

        class Critic(torch.nn.Module):
            def forward(self, volume: Tensor) -> Tensor:
                return 3 * volume.flatten(1)[:, 0]

        objective = self.objective(gradient_penalty=7.0)
        objective.d = Critic()  # type: ignore[assignment]
        fake, real = volumes(2, 0), volumes(2, 1)
        gap = 3 * float((fake - real).flatten(1)[:, 0].mean())
        assert float(objective.discriminator_loss(translation(fake, real))) == pytest.approx(gap + 7 * 4, rel=1e-4)

    def test_the_penalty_trains_d(self) -> None:
        objective = self.objective()
        objective.discriminator_loss(translation(volumes(2, 0), volumes(2, 1))).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.d.parameters())

    def test_five_updates_of_d_for_one_of_g(self) -> None:
        assert (self.objective().g_updates, self.objective().d_updates) == (1, 5)


class TestX2CT:
    def objective(self, **settings: float) -> X2CTObjective:
        torch.manual_seed(0)
        return X2CTObjective(X2CTObjectiveConfig(name="x2ct", **settings), SETTING)

    def test_published_weights(self) -> None:
        part = X2CTObjectiveConfig(name="x2ct")
        assert (part.adversarial, part.voxel, part.projection) == (0.1, 10, 10)

    def test_voxels_and_projections(self) -> None:
        # A shift of tissue along y changes the means along z and x, not those along y.
        fake, real = torch.zeros(1, 1, EDGE, EDGE, EDGE), torch.zeros(1, 1, EDGE, EDGE, EDGE)
        fake[..., 4, :], real[..., 8, :] = 1.0, 1.0
        terms = self.objective(adversarial=0.0).generator_terms(translation(fake, real))
        assert float(terms["voxel"]) == pytest.approx(10 * 2 / EDGE, rel=1e-5)
        assert float(terms["projection"]) == pytest.approx(10 * (2 / EDGE + 0 + 2 / EDGE) / 3, rel=1e-5)

    def test_least_squares(self) -> None:
        objective, fake, real = self.objective(), volumes(1, 0), volumes(1, 1)
        made = translation(fake, real)
        frontal = made.lifted[:, :1, :, None, :].expand(-1, -1, -1, EDGE, -1)
        lateral = made.lifted[:, 1:, :, :, None].expand(-1, -1, -1, -1, EDGE)
        assert objective.d is not None
        scores = [objective.d(torch.cat([volume, frontal, lateral], 1)).detach() for volume in (fake, real)]
        terms = objective.generator_terms(made)
        assert float(terms["adversarial"].detach()) == pytest.approx(
            0.1 * float((scores[0] - 1).square().mean()), rel=1e-4
        )
        expected = 0.5 * float((scores[1] - 1).square().mean() + scores[0].square().mean())
        assert float(objective.discriminator_loss(made).detach()) == pytest.approx(expected, rel=1e-4)

    def test_without_the_gan(self) -> None:
        objective = self.objective(adversarial=0.0)
        assert (objective.d, objective.d_updates) == (None, 0)
        assert objective.discriminator_loss(translation(volumes(1, 0), volumes(1, 1))) is None

    def test_class_maps_are_shares_of_the_edge(self) -> None:
        """Lung in the lower half, bone in a column at the front left, soft tissue elsewhere; parallel rays."""
        real = torch.full((1, 1, EDGE, EDGE, EDGE), 0.5)  # 0 HU
        real[:, :, : EDGE // 2] = 0.1  # -800 HU
        real[..., 4:8, 20:28] = 0.8  # 600 HU at y 4 to 7, x 20 to 27, all z
        maps = self.objective(class_maps=1.0).class_maps(real, VIEWS)
        assert maps.shape == (1, 2, 3, EDGE, EDGE)
        frontal, lateral = maps[0]
        bone = torch.zeros(EDGE)
        bone[20:28] = 4 / EDGE
        assert torch.allclose(frontal[2, 2:-2], bone.expand(EDGE - 4, -1), atol=0.02)
        bone = torch.zeros(EDGE)
        bone[4:8] = 8 / EDGE
        assert torch.allclose(lateral[2, 2:-2], bone.expand(EDGE - 4, -1), atol=0.03)
        assert torch.allclose(frontal[0, 2:14, 2:18], torch.ones(12, 16), atol=0.03)
        assert float(frontal[0, 18:30].max()) < 0.02
        assert torch.allclose(frontal[1, 18:30, 2:18], torch.ones(12, 16), atol=0.03)

    def test_class_maps_are_asked_of_the_network(self) -> None:
        objective = self.objective(adversarial=0.0, class_maps=3.0)
        real = torch.full((1, 1, EDGE, EDGE, EDGE), 0.5)
        wrong = objective.class_maps(real, VIEWS) + 0.25
        terms = objective.generator_terms(translation(real, real, wrong))
        assert float(terms["class_maps"]) == pytest.approx(0.75, rel=1e-4)
        with pytest.raises(TypeError, match="no class maps"):
            objective.generator_terms(translation(real, real))
