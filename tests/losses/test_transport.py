"""Sinkhorn divergences where they are known: of single points, of few points far apart, of single masses."""

import itertools

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate, gaussian_filter
from scipy.stats import wasserstein_distance
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool3d, max_pool3d

from raylift.data.phantom import thorax_phantom
from raylift.images.hounsfield import hu_to_normalised
from raylift.losses.transport import feature_divergence, mass_divergence, patch_divergence, random_filters
from raylift.networks.features import FeatureExtractor

BLUR = 0.05


def volumes(count: int, seed: int) -> Tensor:
    return torch.rand(count, 1, 16, 16, 16, generator=torch.Generator().manual_seed(seed))


def unit_vectors(f: FeatureExtractor, batch: Tensor) -> list[Tensor]:
    """Per layer one vector per volume: channels at each place have length 1 (METHOD.md, section 1)."""
    return [(m / m.square().sum(1, keepdim=True).sqrt()).reshape(len(m), -1).double() for m in f(batch)]


def half_square(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().sum() / 2)


def test_of_single_volumes_is_half_the_squared_distance_of_features() -> None:
    f, fake, real = FeatureExtractor(), volumes(1, 1), volumes(1, 2)
    expected = sum(half_square(a, b) for a, b in zip(unit_vectors(f, fake), unit_vectors(f, real), strict=True))
    assert expected > 1
    assert float(feature_divergence(f, fake, real, BLUR)) == pytest.approx(expected, rel=1e-4)


def test_of_a_batch_is_its_cheapest_assignment() -> None:
    # The costs are hundreds of times ε = 0.05², so the plan is a permutation.
    f, fake, real = FeatureExtractor(), volumes(3, 1), volumes(3, 2)
    expected = 0.0
    for a, b in zip(unit_vectors(f, fake), unit_vectors(f, real), strict=True):
        costs = [[half_square(x, y) for y in b] for x in a]
        expected += min(sum(costs[i][j] for i, j in enumerate(p)) / 3 for p in itertools.permutations(range(3)))
    assert float(feature_divergence(f, fake, real, BLUR)) == pytest.approx(expected, rel=3e-3)


def test_of_equal_batches_in_any_order_is_nothing() -> None:
    f, batch = FeatureExtractor(), volumes(4, 1)
    assert abs(float(feature_divergence(f, batch, batch, BLUR))) < 1e-5
    assert abs(float(feature_divergence(f, batch, batch[[2, 0, 3, 1]], BLUR))) < 1e-5
    assert float(feature_divergence(f, batch, volumes(4, 2), BLUR)) > 1


def test_ignores_the_order_of_both_batches() -> None:
    f, fake, real = FeatureExtractor(), volumes(3, 1), volumes(3, 2)
    straight = float(feature_divergence(f, fake, real, BLUR))
    shuffled = float(feature_divergence(f, fake[[2, 0, 1]], real[[1, 0, 2]], BLUR))
    assert shuffled == pytest.approx(straight, rel=1e-5)


def test_gradient_reaches_the_fake_alone() -> None:
    fake, real = volumes(2, 1).requires_grad_(), volumes(2, 2).requires_grad_()
    feature_divergence(FeatureExtractor(), fake, real, BLUR).backward()
    assert fake.grad is not None
    assert fake.grad.isfinite().all()
    assert fake.grad.abs().sum() > 0
    assert real.grad is None


def test_gradient_of_an_empty_volume_is_finite() -> None:
    # All features are 0 there, and so is the length they are divided by.
    fake = torch.zeros(1, 1, 16, 16, 16, requires_grad=True)
    feature_divergence(FeatureExtractor(), fake, volumes(1, 2), BLUR).backward()
    assert fake.grad is not None
    assert fake.grad.isfinite().all()


def test_sees_density() -> None:
    """A volume of half the density is far off, and the gradient lies in the body and at its border, not in the air."""
    f = FeatureExtractor()
    patients = [torch.from_numpy(hu_to_normalised(thorax_phantom(seed, 10.0).array)).float() for seed in range(2)]
    batch = torch.stack([adaptive_avg_pool3d(patient[None], 32) for patient in patients])
    noise = abs(float(feature_divergence(f, batch, batch.clone(), BLUR)))
    assert float(feature_divergence(f, batch / 2, batch, BLUR)) > max(10, 1000 * noise)
    near = (0.9 * batch).requires_grad_()
    feature_divergence(f, near, batch, BLUR).backward()
    assert near.grad is not None
    share = near.grad.square() / near.grad.square().sum()
    tissue = batch > 0.05
    around = max_pool3d(tissue.float(), 5, 1, 2) > 0
    assert share[tissue].sum() > 0.2
    assert share[~around].sum() < 0.2


def block(box: tuple[int, int, int], density: float = 1.0) -> Tensor:
    """A volume (1, 1, 32, 32, 32) that is empty but for one of 8³ boxes."""
    volume = torch.zeros(1, 1, 32, 32, 32)
    z, y, x = (4 * k for k in box)
    volume[..., z : z + 4, y : y + 4, x : x + 4] = density
    return volume


def test_mass_of_equal_volumes_is_nothing() -> None:
    assert abs(float(mass_divergence(volumes(2, 1), volumes(2, 1)))) < 1e-5


@pytest.mark.parametrize("moved", [(0, 0, 1), (0, 3, 0), (5, 0, 0), (2, 3, 4)])
def test_mass_moved_by_boxes_costs_half_the_squared_distance(moved: tuple[int, int, int]) -> None:
    here = (1, 2, 2)
    there = tuple(a + b for a, b in zip(here, moved, strict=True))
    expected = sum(k * k for k in moved) / 8**2 / 2
    cost = float(mass_divergence(block(here), block(there)))  # type: ignore[arg-type]
    assert cost == pytest.approx(expected, rel=0.02)


def test_mass_grows_with_distance_where_voxels_do_not() -> None:
    start, stops = block((0, 4, 4)), [block((k, 4, 4)) for k in (1, 3, 7)]
    differences = [float((start - stop).abs().mean()) for stop in stops]
    assert differences[0] == differences[1] == differences[2]
    costs = [float(mass_divergence(start, stop)) for stop in stops]
    assert costs[0] < costs[1] / 4 < costs[2] / 16


def test_mass_that_is_missing_costs_its_square() -> None:
    # Both are uniform: nothing to move, and (0.5 - 0.2)² of mass too little.
    fake, real = torch.full((2, 1, 16, 16, 16), 0.2), torch.full((2, 1, 16, 16, 16), 0.5)
    assert float(mass_divergence(fake, real)) == pytest.approx(0.09, rel=1e-3)


def test_mass_compares_pairs() -> None:
    a, b = block((1, 4, 4)), block((5, 4, 4))
    paired = torch.cat([a, b])
    assert abs(float(mass_divergence(paired, paired))) < 1e-5
    # Four boxes of an eighth each: ½ · 0.5².
    assert float(mass_divergence(paired, paired.flip(0))) == pytest.approx(0.125, rel=0.02)


def test_mass_gradient_pulls_towards_the_right_place() -> None:
    fake = (block((4, 4, 3)) + 0.1).requires_grad_()
    mass_divergence(fake, block((4, 4, 6)) + 0.1).backward()
    assert fake.grad is not None
    assert fake.grad.isfinite().all()
    price = torch.nn.functional.avg_pool3d(fake.grad, 4)[0, 0, 4, 4]
    assert price[6] < price[5] < price[4] < price[3]


class TestPatches:
    def test_is_the_mean_wasserstein_distance_of_the_blocks(self) -> None:
        """By SciPy: each block's projected patches, in one dimension."""
        fake, real = volumes(2, 1), volumes(2, 2)
        torch.manual_seed(0)
        filters = random_filters(3)
        distances = [
            wasserstein_distance(*(
                correlate(volume[0].numpy(), direction[0].numpy(), mode="constant")[z:z + 8, y:y + 8, x:x + 8].ravel()
                for volume in pair
            ))
            for pair in zip(fake, real, strict=True)
            for direction in filters
            for z, y, x in itertools.product((0, 8), repeat=3)
        ]  # fmt: skip
        assert float(patch_divergence(fake, real, filters)) == pytest.approx(np.mean(distances), rel=1e-4)

    def test_a_steep_edge_in_the_next_place_is_better_than_a_blurred_one(self) -> None:
        """Mean errors say the opposite."""
        edge = np.zeros((16, 16, 16), np.float32)
        edge[:, :, 4:] = 0.5
        moved, blurred = np.roll(edge, 1, axis=2), gaussian_filter(edge, (0, 0, 1), mode="nearest")
        moved[:, :, 0] = 0
        real, moved_, blurred_ = (torch.from_numpy(array)[None, None] for array in (edge, moved, blurred))
        torch.manual_seed(0)
        filters = random_filters(16)
        assert patch_divergence(moved_, real, filters) < 0.8 * patch_divergence(blurred_, real, filters)
        assert (moved_ - real).abs().mean() > 1.1 * (blurred_ - real).abs().mean()

    def test_directions_have_unit_length_and_no_mean(self) -> None:
        filters = random_filters(5)
        assert filters.shape == (5, 1, 5, 5, 5)
        assert torch.allclose(filters.flatten(1).norm(dim=1), torch.ones(5))
        assert torch.allclose(filters.mean((2, 3, 4)), torch.zeros(5, 1), atol=1e-6)
