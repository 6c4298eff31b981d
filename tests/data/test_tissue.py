"""Changes of tissue: each density becomes what was asked for, and opacities fill lungs and nothing else."""

import numpy as np
import pytest
import torch

from raylift.config.recipe import AugmentationConfig
from raylift.data.tissue import FILLING, SMALL_MM, Opacity, Tissue, _curve
from raylift.geometry import VolumeGrid

GRID = VolumeGrid((20, 30, 40), (4.0, 5.0, 6.0), (-80.0, -75.0, -60.0))  # (x, y, z) spacing and origin
LUNG, WATER = 200.0, 1000.0


def ball(share: float = 1.0, softness: float = 1e-3) -> Opacity:
    return Opacity((20.0, -15.0, 12.0), (12.0, 20.0, 24.0), share, 900.0, softness)


@pytest.mark.parametrize(
    ("density", "expected"),
    # Lung + 60, soft tissue + 20, fat + 10, bone stretched by a fifth from 1050 on: 50 + 20 + 0.2 * 350 more at 1400.
    [(0, 0), (100, 160), (300, 345), (500, 530), (900, 910), (1050, 1070), (1400, 1490)],
)
def test_the_curve_by_hand(density: int, expected: float) -> None:
    assert _curve(60.0, 20.0, 0.2)[density].item() == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("lung", [-200.0, 400.0])
def test_denser_tissue_stays_denser(lung: float) -> None:
    curve = _curve(lung, -30.0, -0.3)
    assert (curve.diff() >= 0).all()
    assert curve.min() >= 0


def test_no_change_is_none() -> None:
    density = torch.rand(GRID.shape, generator=torch.Generator().manual_seed(0)) * 2000
    drawn = Tissue.draw(AugmentationConfig(), torch.Generator().manual_seed(1))
    assert torch.equal(drawn.change(density.clone(), GRID), density)


def test_an_opacity_fills_its_ellipsoid() -> None:
    changed = Tissue(None, (ball(),)).change(torch.full(GRID.shape, LUNG), GRID).numpy()
    relative = (GRID.points() - (20.0, -15.0, 12.0)) / (12.0, 20.0, 24.0)
    distance = np.linalg.norm(relative, axis=-1)
    assert changed[distance < 0.98] == pytest.approx(900, abs=0.1)
    assert changed[distance > 1.02] == pytest.approx(LUNG, abs=0.1)
    assert (distance < 0.98).sum() > 100


def test_half_an_opacity_replaces_half_of_the_air() -> None:
    changed = Tissue(None, (ball(share=0.5),)).change(torch.full(GRID.shape, LUNG), GRID)
    assert changed.max().item() == pytest.approx((LUNG + 900) / 2, abs=0.1)


def test_an_opacity_fills_lung_that_is_thinned_too() -> None:
    """Lungs vary from voxel to voxel, and what the curve makes as thin as air is filled all the same."""
    lung = 150 + 40 * torch.randn(GRID.shape, generator=torch.Generator().manual_seed(0))
    changed = Tissue(_curve(-90.0, 0.0, 0.0), (ball(),)).change(lung.clone(), GRID)
    inside = torch.from_numpy(
        np.linalg.norm((GRID.points() - (20.0, -15.0, 12.0)) / (12.0, 20.0, 24.0), axis=-1) < 0.98
    )
    assert (changed[inside] > 800).float().mean() > 0.97
    assert changed[~inside].mean() < 100


@pytest.mark.parametrize("density", [0.0, WATER, 1800.0])
def test_what_is_not_lung_stays(density: float) -> None:
    changed = Tissue(None, (ball(),)).change(torch.full(GRID.shape, density), GRID)
    assert (changed == density).all()


def test_draws_follow_the_settings() -> None:
    settings = AugmentationConfig(lung=80, soft_tissue=20, bone=0.2, opacities=0.5)
    drawn = [Tissue.draw(settings, torch.Generator().manual_seed(seed)) for seed in range(300)]
    lungs = [tissue.curve[100].item() - 100 for tissue in drawn if tissue.curve is not None]
    assert len(lungs) == 300
    assert -80 <= min(lungs) < -60
    assert 60 < max(lungs) <= 80
    assert 0.4 < sum(bool(tissue.opacities) for tissue in drawn) / 300 < 0.6
    opacities = [opacity for tissue in drawn for opacity in tissue.opacities]
    assert all(FILLING[0] <= opacity.filling <= FILLING[1] for opacity in opacities)
    assert min(min(opacity.semi_axes) for opacity in opacities) >= SMALL_MM[0]
    again = Tissue.draw(settings, torch.Generator().manual_seed(7))
    assert torch.equal(again.curve, drawn[7].curve)  # type: ignore[arg-type]
    assert again.opacities == drawn[7].opacities
