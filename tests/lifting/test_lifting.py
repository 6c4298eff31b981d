"""Lifting by hand: which pixel a voxel takes its value from, and that the X-ray's own projector agrees."""

import numpy as np
import pytest
import torch

from raylift.drr.operator import ProjectionOperator
from raylift.geometry import Geometry, View, VolumeGrid
from raylift.lifting.coordinates import depth_axis
from raylift.lifting.registry import build_lift

ISOCENTRE = (12.0, -80.0, 300.0)
GRID = VolumeGrid.cube(ISOCENTRE, 80, 8)  # voxels of 10 mm
# Magnified 1.25 times: 8 pixels of 12.5 mm see exactly the cube's 80 mm at the isocentre.
UNIT = Geometry(sad=400.0, sdd=500.0, detector_mm=100.0, pixels=8)
AP, RIGHT = View(0.0), View(90.0)


def xray(seed: int = 0, pixels: int = 8) -> torch.Tensor:
    return torch.rand(1, 1, pixels, pixels, generator=torch.Generator().manual_seed(seed))


def test_a_frontal_image_is_repeated_from_front_to_back() -> None:
    image = xray()
    volume = build_lift("repeat", GRID, UNIT.cameras([AP], ISOCENTRE), ISOCENTRE)(image)[0, 0]
    for y in range(8):
        # Row 0 is superior, the last z; column 0 is the patient's right, x = 0.
        assert torch.allclose(volume[:, y], image[0, 0].flip(0), atol=1e-5)


def test_a_lateral_image_is_repeated_from_side_to_side() -> None:
    image = xray()
    volume = build_lift("repeat", GRID, UNIT.cameras([RIGHT], ISOCENTRE), ISOCENTRE)(image)[0, 0]
    for x in range(8):
        # Column 0 is the patient's front, y = 0.
        assert torch.allclose(volume[:, :, x], image[0, 0].flip(0), atol=1e-5)


@pytest.mark.parametrize(("name", "reversed_like"), [("pa", "ap"), ("lateral-left", "lateral-right")])
def test_views_from_the_other_side(name: str, reversed_like: str) -> None:
    """PA oriented for reading repeats as AP does; the plain half turn with its columns reversed."""
    image = xray()
    view, other = View.parse(name), View.parse(reversed_like)
    expected = build_lift("repeat", GRID, UNIT.cameras([other], ISOCENTRE), ISOCENTRE)(image)
    assert torch.allclose(
        build_lift("repeat", GRID, UNIT.cameras([view], ISOCENTRE), ISOCENTRE)(image), expected, atol=1e-5
    )
    plain = build_lift("repeat", GRID, UNIT.cameras([View(view.angle)], ISOCENTRE), ISOCENTRE)(image.flip(3))
    assert torch.allclose(plain, expected, atol=1e-5)


def test_an_oblique_image_is_constant_along_its_own_axis() -> None:
    """At 45° u = (1, 1)/√2: voxels with the same x + y share a column."""
    volume = build_lift("repeat", GRID, UNIT.cameras([View(45.0)], ISOCENTRE), ISOCENTRE)(xray())[0, 0]
    for step in range(1, 4):
        assert torch.allclose(volume[:, 3, 3], volume[:, 3 - step, 3 + step], atol=1e-5)
    assert not torch.allclose(volume[:, 3, 3], volume[:, 4, 4], atol=1e-3)


def test_backprojection_of_one_voxel_by_hand() -> None:
    # Voxel z, y, x = 6, 1, 5 lies at (+15, -25, +25) mm from the isocentre. Seen from the front it is 25 mm nearer
    # the source: magnified 500 / 375. Its shadow is 33.33 mm above and 20 mm right of the detector's middle,
    # 2.667 and 1.6 pixels of 12.5 mm: row 3.5 - 2.667, column 3.5 + 1.6.
    image = xray()
    volume = build_lift("backproject", GRID, UNIT.cameras([AP], ISOCENTRE), ISOCENTRE)(image)[0, 0]
    row, column = 3.5 - 2.6667, 3.5 + 1.6
    pixels = image[0, 0].numpy()
    r, c = int(row), int(column)
    weights = np.outer([1 - (row - r), row - r], [1 - (column - c), column - c])
    expected = (weights * pixels[r : r + 2, c : c + 2]).sum()
    assert float(volume[6, 1, 5]) == pytest.approx(expected, abs=1e-3)


def test_voxels_beside_the_image_get_nothing() -> None:
    small = Geometry(400.0, 500.0, 50.0, 8)
    for name in ("repeat", "backproject", "transpose", "coarse"):
        volume = build_lift(name, GRID, small.cameras([AP], ISOCENTRE), ISOCENTRE)(torch.ones(1, 1, 8, 8))[0, 0]
        assert volume[0].abs().max() == 0
        assert volume[4, 4, 4] == pytest.approx(1)


@pytest.mark.parametrize("angle", [0.0, 33.0, 90.0, 270.0])
def test_both_lifts_agree_on_parallel_rays(angle: float) -> None:
    parallel = Geometry(400.0, 500.0, 80.0, 8, parallel=True)
    image = xray(3)
    lifted = [
        build_lift(name, GRID, parallel.cameras([View(angle)], ISOCENTRE), ISOCENTRE)(image)
        for name in ("repeat", "backproject")
    ]
    assert lifted[0].abs().max() > 0
    assert torch.allclose(*lifted)


@pytest.mark.parametrize("angle", [0.0, 90.0, 200.0])
def test_a_ball_lights_up_where_it_is(angle: float) -> None:
    """The projector and `backproject` are two ends of the same ray; `repeat` misses off the isocentre."""
    grid = VolumeGrid.cube(ISOCENTRE, 160, 80)
    unit = Geometry(400.0, 500.0, 240.0, 160)
    offset = np.array([-38.0, 41.0, 47.0])
    at = np.add(ISOCENTRE, offset)
    ball = np.clip((4 - np.linalg.norm(grid.points() - at, axis=-1)) / 2 + 0.5, 0, 1)
    view = View(angle)
    image = ProjectionOperator(grid, unit.cameras([view], ISOCENTRE))(torch.from_numpy(ball).float()[None])
    index = tuple(round(float(i)) for i in (grid.world_to_index @ [*at, 1])[2::-1])
    exact = build_lift("backproject", grid, unit.cameras([view], ISOCENTRE), ISOCENTRE)(image)[0, 0]
    assert float(exact[index]) > 0.9 * float(image.max())
    # Along the ray through the ball and nowhere else: towards the source it stays bright, beside it is dark.
    to_source = np.asarray(unit.camera(view, ISOCENTRE).source) - at
    to_source /= np.linalg.norm(to_source)
    nearer = at + 30 * to_source
    assert float(exact[_voxel(grid, nearer)]) > 0.7 * float(image.max())
    assert float(exact[_voxel(grid, at + 14 * view.u)]) < 0.1 * float(image.max())
    # The depth of these balls makes `repeat` look at another place by more than the ball's radius.
    depth = float(offset @ view.towards_source)
    wrong_by = np.hypot(offset @ view.u, offset[2]) * (400 / (400 - depth) - 1)
    assert abs(wrong_by) > 4
    repeated = build_lift("repeat", grid, unit.cameras([view], ISOCENTRE), ISOCENTRE)(image)[0, 0]
    assert float(repeated[index]) < 0.7 * float(image.max())


def _voxel(grid: VolumeGrid, at: np.ndarray) -> tuple[int, ...]:
    return tuple(round(float(i)) for i in (grid.world_to_index @ [*at, 1])[2::-1])


def test_each_view_fills_its_own_channel() -> None:
    images = torch.cat([xray(0), xray(1)], 1).repeat(3, 1, 1, 1)
    images[1] *= 2
    both = build_lift("backproject", GRID, UNIT.cameras([AP, RIGHT], ISOCENTRE), ISOCENTRE)(images)
    assert both.shape == (3, 2, 8, 8, 8)
    for channel, view in enumerate((AP, RIGHT)):
        alone = build_lift("backproject", GRID, UNIT.cameras([view], ISOCENTRE), ISOCENTRE)(
            images[:, channel : channel + 1]
        )
        assert torch.equal(both[:, channel], alone[:, 0])
    assert torch.allclose(both[1], 2 * both[0])


@pytest.mark.parametrize("name", ["repeat", "backproject", "transpose", "coarse", "image"])
def test_gradients_reach_every_pixel(name: str) -> None:
    images = torch.cat([xray(0), xray(1)], 1).requires_grad_()
    build_lift(name, GRID, UNIT.cameras([AP, RIGHT], ISOCENTRE), ISOCENTRE)(images).sum().backward()
    assert images.grad is not None
    assert (images.grad > 0).all()


def test_a_grid_that_is_no_cube() -> None:
    grid = VolumeGrid((3, 5, 4), (20.0, 10.0, 15.0), (-18.0, -100.0, 285.0))
    volume = build_lift("repeat", grid, UNIT.cameras([AP], ISOCENTRE), ISOCENTRE)(xray())
    assert volume.shape == (1, 1, 3, 5, 4)
    # Voxel (1, 2, 1) at (2, -80, 300) is 10 mm right of the isocentre: one pixel left of the middle, row 3.5.
    image = xray()[0, 0]
    assert float(volume[0, 0, 1, 2, 1]) == pytest.approx(float(image[3:5, 2:4].mean()), abs=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (1, 3, 8, 8), (1, 2, 16, 16), (1, 2, 8, 9)])
def test_xrays_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="are not of 2 × 8 × 8 pixels"):
        build_lift("repeat", GRID, UNIT.cameras([AP, RIGHT], ISOCENTRE), ISOCENTRE)(torch.zeros(shape))


SMOOTH = 32  # voxels, for lifts that interpolate twice


def smooth_lift(name: str, angle: float, mirrored: bool = False) -> torch.Tensor:
    """A smooth image without symmetry, lifted to 32³ voxels."""
    grid = VolumeGrid.cube(ISOCENTRE, 80, SMOOTH)
    rows, columns = torch.meshgrid(torch.linspace(0, 3, 64), torch.linspace(0, 3, 64), indexing="ij")
    image = torch.sin(columns + 1) + torch.cos(0.7 * rows) + 0.3 * columns
    unit = Geometry(400.0, 500.0, 150.0, 64)
    return build_lift(name, grid, unit.cameras([View(angle, mirrored)], ISOCENTRE), ISOCENTRE)(image[None, None])[0, 0]


@pytest.mark.parametrize(("angle", "mirrored"), [(0, False), (30, False), (45, False), (135, False), (225, True)])
def test_coarse_alignment_turns_the_copies_to_where_they_belong(angle: float, mirrored: bool) -> None:
    """Kornia's rotation of frontal copies against copies along the view's own axis, where no corner is cut off."""
    turned, exact = smooth_lift("coarse", angle, mirrored), smooth_lift("repeat", angle, mirrored)
    _, y, x = np.meshgrid(*[np.arange(SMOOTH) - (SMOOTH - 1) / 2] * 3, indexing="ij")
    inside = torch.from_numpy(np.hypot(x, y) < SMOOTH / 2 - 2)
    assert float((turned - exact)[inside].abs().max()) < 0.01
    assert angle % 90 == 0 or float((turned - smooth_lift("coarse", -angle % 360))[inside].abs().max()) > 0.1


@pytest.mark.parametrize(
    ("angle", "like"), [(45, 0), (135, 0), (225, 0), (315, 0), (0, 0), (90, 90), (88, 90), (184, 180), (270, 270)]
)
def test_transpose_turns_views_at_right_angles_alone(angle: float, like: float) -> None:
    assert torch.allclose(smooth_lift("transpose", angle), smooth_lift("repeat", like), atol=1e-5)


@pytest.mark.parametrize(("view", "axis"), [(AP, 1), (View(180.0, True), 1), (RIGHT, 2), (View(270.0, True), 2)])
def test_images_are_a_slice_of_the_repeated_volume(view: View, axis: int) -> None:
    image = xray(5)
    frame = build_lift("image", GRID, UNIT.cameras([view], ISOCENTRE), ISOCENTRE)(image)
    volume = build_lift("repeat", GRID, UNIT.cameras([view], ISOCENTRE), ISOCENTRE)(image)
    assert depth_axis(view) == axis
    assert frame.shape == (1, 1, 8, 8)
    assert torch.allclose(volume.select(axis + 2, 3), frame, atol=1e-5)


class TestNoise:
    @staticmethod
    def lift(name: str, patients: list[int] | None, images: torch.Tensor | None = None) -> torch.Tensor:
        images = torch.cat([xray(0), xray(1)], 1).repeat(2, 1, 1, 1) if images is None else images
        return build_lift(name, GRID, UNIT.cameras([AP, RIGHT], ISOCENTRE), ISOCENTRE)(images, patients)

    @pytest.mark.parametrize("name", ["noise-fixed", "noise-fresh"])
    def test_the_image_comes_first_and_one_image_of_noise_behind_it(self, name: str) -> None:
        torch.manual_seed(0)
        lifted = self.lift(name, [0, 1])
        copies = self.lift("repeat", None)
        assert torch.allclose(lifted[:, 0, :, 0], copies[:, 0, :, 0])
        assert torch.allclose(lifted[:, 1, :, :, 0], copies[:, 1, :, :, 0])
        frontal, lateral = lifted[:, 0, :, 1:], lifted[:, 1, :, :, 1:]
        assert torch.equal(frontal, frontal[:, :, :1].expand_as(frontal))
        assert torch.equal(lateral, lateral[..., :1].expand_as(lateral))
        noise = torch.cat([frontal[:, :, 0].flatten(), lateral[..., 0].flatten()])
        assert float(noise.mean()) == pytest.approx(0, abs=0.2)
        assert float(noise.std()) == pytest.approx(1, abs=0.2)

    def test_a_patient_keeps_his_noise(self) -> None:
        first, again, other = (self.lift("noise-fixed", patients) for patients in ([7, 8], [7, 8], [8, 7]))
        assert torch.equal(first, again)
        assert torch.equal(first[0], other[1])
        assert not torch.equal(first[0], first[1])
        assert not torch.equal(first[:, 0, :, 1], first[:, 1, :, :, 1])

    def test_fresh_noise_is_new_each_time_in_training(self) -> None:
        assert not torch.equal(self.lift("noise-fresh", [7, 8]), self.lift("noise-fresh", [7, 8]))

    @pytest.mark.parametrize("name", ["noise-fixed", "noise-fresh"])
    def test_the_same_xrays_give_the_same_volume_in_reconstruction(self, name: str) -> None:
        images = torch.cat([xray(0), xray(1)], 1)
        assert torch.equal(self.lift(name, None, images), self.lift(name, None, images))
        assert not torch.equal(self.lift(name, None, images)[0, 0, :, 1], self.lift(name, None, images + 1)[0, 0, :, 1])
