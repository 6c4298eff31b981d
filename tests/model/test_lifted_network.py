"""X-rays to a volume: the lift, its scale, and the network behind it."""

import pytest
import torch
import torch.nn.functional as F

from raylift.config.recipe import Recipe
from raylift.drr.operator import ProjectionOperator
from raylift.geometry import Geometry, View
from raylift.images.hounsfield import WATER_MU
from raylift.lifting.registry import build_lift
from raylift.lifting.scaling import XRAY_SCALE
from raylift.model.lifted_network import ISOCENTRE, LiftedNetwork
from raylift.model.weights import build_lifted_network
from raylift.model.weights_info import Training, WeightsDescription
from tiny_network import TinyNetwork

VIEWS = (View(0.0), View(90.0))


@pytest.fixture(scope="module")
def lifted_network() -> LiftedNetwork:
    torch.manual_seed(0)
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "network": {"name": "swin_unetr", "feature_size": 12, "window_size": 4},
            "objective": {"name": "paired"},
            "train": {"steps": 1},
        }
    )
    geometry = Geometry.preset("chest-stand", 32)
    return build_lifted_network(WeightsDescription.of(recipe, geometry, 64, 320.0, Training(cases=[]))).eval()


def test_translates_what_the_lift_gives(lifted_network: LiftedNetwork) -> None:
    xrays = torch.rand(1, 2, 32, 32) * 6
    lifted = (
        build_lift("backproject", lifted_network.grid, lifted_network.geometry.cameras(VIEWS), ISOCENTRE)(xrays)
        / XRAY_SCALE
    )
    with torch.inference_mode():
        volume = lifted_network(xrays)
        assert volume.shape == (1, 1, 64, 64, 64)
        torch.testing.assert_close(volume, lifted_network.network(lifted))


def test_the_grid_is_centred_on_the_isocentre(lifted_network: LiftedNetwork) -> None:
    assert lifted_network.grid.spacing == (5.0, 5.0, 5.0)
    assert lifted_network.grid.centre == pytest.approx((0, 0, 0))


def test_a_constant_xray_lifts_to_itself_over_four(lifted_network: LiftedNetwork) -> None:
    xrays = torch.stack([torch.full((32, 32), 2.0), torch.full((32, 32), 6.0)])[None]
    lifted = lifted_network.lift(xrays)
    # The middle of the cube is seen by both views, and line integrals are divided by 4.
    for channel, value in enumerate((0.5, 1.5)):
        seen = lifted[0, channel, 20:44, 20:44, 20:44]
        torch.testing.assert_close(seen, torch.full_like(seen, value))


def test_finer_xrays_are_averaged(lifted_network: LiftedNetwork) -> None:
    fine = torch.rand(1, 2, 128, 128)
    torch.testing.assert_close(lifted_network.lift(fine), lifted_network.lift(F.avg_pool2d(fine, 4)))


def test_other_views_move_the_lift(lifted_network: LiftedNetwork) -> None:
    # The right half of the detector is bright: u runs to the left (+x) at 0°, mirrored at 180° again to the left.
    xrays = torch.zeros(1, 2, 32, 32)
    xrays[..., 16:] = 1
    own, opposite = (
        lifted_network.lift(xrays),
        lifted_network.lift(xrays, lifted_network.geometry.cameras((View(180.0, True), View(90.0)))),
    )
    for lifted in (own, opposite):
        assert lifted[0, 0, 32, 32, 50] == pytest.approx(0.25)
        assert lifted[0, 0, 32, 32, 13] == 0
    # Near the front (y = -157.5 mm), 2.5 mm left: seen at 0° from 1442.5 mm, at 180° from 1757.5 mm; between the
    # last dark column, 15, and the first bright one.
    for lifted, distance in ((own, 1600 - 157.5), (opposite, 1600 + 157.5)):
        column = 2.5 * (1800 / distance) / (430 / 32) + 15.5
        assert lifted[0, 0, 32, 0, 32] == pytest.approx(0.25 * (column - 15), abs=1e-4)


def test_only_the_network_is_state(lifted_network: LiftedNetwork) -> None:
    lifted_network.lift(torch.rand(1, 2, 32, 32))
    assert all(name.startswith("network.") for name in lifted_network.state_dict())


def any_views(**options: object) -> LiftedNetwork:
    """A map of any views, of a tiny network with random weights."""
    settings = {"feature_size": 4, "window_size": 4, "lift": "backproject", "aggregation": "harmonics"}
    geometry = Geometry.preset("chest-stand", 32)
    made = LiftedNetwork(
        network="unet", geometry=geometry, views=VIEWS, voxels=32, cube_mm=320.0, **{**settings, **options}
    )
    channels = next(made.network.parameters()).shape[1]
    torch.manual_seed(0)
    made.network = TinyNetwork(channels, 2 if made.uncertainty else 1, 4)
    return made.eval()


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@torch.inference_mode()
def test_any_number_of_views_in_any_order(count: int) -> None:
    lifted_network, views = any_views(iterations=2), tuple(View(37.0 * k) for k in range(count))
    xrays = torch.rand(2, count, 32, 32)
    volume = lifted_network(xrays, lifted_network.geometry.cameras(views))
    assert volume.shape == (2, 1, 32, 32, 32)
    torch.testing.assert_close(lifted_network(xrays.flip(1), lifted_network.geometry.cameras(views[::-1])), volume)


@torch.inference_mode()
def test_another_unit_is_lifted_by_its_own_rays() -> None:
    lifted_network, unit = any_views(), Geometry.preset("x2ct", 32)
    xrays = torch.rand(1, 2, 32, 32)
    expected = build_lift("backproject", lifted_network.grid, unit.cameras(VIEWS), ISOCENTRE)(xrays) / XRAY_SCALE
    torch.testing.assert_close(lifted_network.lift(xrays, unit.cameras(VIEWS)), expected)
    assert not torch.allclose(lifted_network.lift(xrays, lifted_network.geometry.cameras(VIEWS)), expected, atol=0.05)


@pytest.mark.parametrize("aggregation", ["concatenate", "harmonics"])
@torch.inference_mode()
def test_the_true_volume_leaves_nothing_unexplained(aggregation: str) -> None:
    lifted_network = any_views(iterations=2, aggregation=aggregation)
    volume = torch.rand(1, 1, 32, 32, 32)
    xrays = ProjectionOperator(lifted_network.grid, lifted_network.geometry.cameras(VIEWS, ISOCENTRE))(
        2 * WATER_MU * volume[:, 0]
    )
    channels = 2 if aggregation == "concatenate" else 3
    first, second = lifted_network.inputs(xrays), lifted_network.inputs(xrays, volume=volume)
    assert not first[:, -channels - 1].any()
    assert torch.equal(second[:, -channels - 1 :][:, :1], volume)
    assert second[:, -channels:].abs().max() < 1e-5 < first[:, -channels:].abs().max()
    assert torch.equal(first[:, : -channels - 1], second[:, : -channels - 1])


@torch.inference_mode()
def test_the_second_pass_sees_the_first() -> None:
    lifted_network, xrays = any_views(iterations=2), torch.rand(1, 2, 32, 32) * 6
    first = lifted_network.network(lifted_network.inputs(xrays)).clamp(0, 1)
    torch.testing.assert_close(
        lifted_network(xrays), lifted_network.network(lifted_network.inputs(xrays, volume=first))
    )
    assert lifted_network.translate(lifted_network.network, xrays, None, 0) is None


@torch.inference_mode()
def test_uncertainty_is_a_second_channel_and_positive() -> None:
    out = any_views(uncertainty=True)(torch.rand(1, 2, 32, 32))
    assert out.shape == (1, 2, 32, 32, 32)
    assert float(out[:, 1].min()) > 0
