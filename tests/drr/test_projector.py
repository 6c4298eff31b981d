"""The projector against line integrals known in closed form, and against where hand geometry puts a shadow."""

import numpy as np
import pytest
import torch

from raylift.drr.operator import ProjectionOperator
from raylift.drr.projector import project_volume
from raylift.geometry import IDENTITY, Direction, Geometry, View, VolumeGrid
from raylift.images.volume import Volume

ISOCENTRE = (20.0, -130.0, -400.0)
UNIT = Geometry(sad=541.0, sdd=949.0, detector_mm=400.0, pixels=48)
TURN = np.radians(25)
TURNED: Direction = (np.cos(TURN), -np.sin(TURN), 0, np.sin(TURN), np.cos(TURN), 0, 0, 0, 1)  # about z
# Array axes run along -x, +z, +y: a permutation with a flip.
PERMUTED: Direction = (-1, 0, 0, 0, 0, 1, 0, 1, 0)
# Tilted about two axes.
TILTED: Direction = tuple(  # type: ignore[assignment]
    (np.reshape(TURNED, (3, 3)) @ [[1, 0, 0], [0, np.cos(0.3), -np.sin(0.3)], [0, np.sin(0.3), np.cos(0.3)]]).ravel()
)


def centred(shape: tuple[int, int, int], spacing: tuple[float, float, float], direction: Direction) -> VolumeGrid:
    """A grid around the isocentre with any direction."""
    half = (np.array(shape[::-1]) - 1) / 2 * spacing
    x, y, z = np.asarray(ISOCENTRE) - np.reshape(direction, (3, 3)) @ half
    return VolumeGrid(shape, spacing, (x, y, z), direction)


GRIDS = {
    "isotropic": centred((80, 80, 80), (2.0, 2.0, 2.0), IDENTITY),
    "anisotropic": centred((54, 100, 80), (2.0, 1.6, 3.0), IDENTITY),
    "turned": centred((54, 100, 80), (2.0, 1.6, 3.0), TURNED),
    "permuted": centred((80, 54, 100), (1.6, 3.0, 2.0), PERMUTED),
    "tilted": centred((80, 80, 80), (2.0, 2.0, 2.0), TILTED),
}


def inside(grid: VolumeGrid, distance: object) -> np.ndarray:
    """Share of each voxel inside a body, from 3³ points a voxel; `distance` is below 0 inside."""
    total = np.zeros(grid.shape)
    points = grid.points()
    axes = np.reshape(grid.direction, (3, 3)) * grid.spacing
    offsets = (np.arange(3) - 1) / 3
    for a in offsets:
        for b in offsets:
            for c in offsets:
                total += distance(points + axes @ [a, b, c]) < 0  # type: ignore[operator]
    return total / 27


def ball(centre: np.ndarray, radius: float) -> object:
    return lambda points: np.linalg.norm(points - centre, axis=-1) - radius


def chord(start: np.ndarray, end: np.ndarray, centre: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Length of each ray in a ball, and the ray's distance to the ball's centre."""
    along = (end - start) / np.linalg.norm(end - start, axis=-1, keepdims=True)
    foot = ((centre - start) * along).sum(-1)
    distance = np.sqrt(np.maximum(((centre - start) ** 2).sum(-1) - foot**2, 0))
    return 2 * np.sqrt(np.maximum(radius**2 - distance**2, 0)), distance


def through_box(start: np.ndarray, end: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Length of each ray in an axis-aligned box, by the slab method."""
    run = end - start
    with np.errstate(divide="ignore"):
        first, second = (low - start) / run, (high - start) / run
    enter, leave = np.minimum(first, second).max(-1), np.maximum(first, second).min(-1)
    return np.maximum(leave - enter, 0) * np.linalg.norm(run, axis=-1)


def project(mu: np.ndarray, grid: VolumeGrid, views: list[View], unit: Geometry = UNIT) -> np.ndarray:
    return ProjectionOperator(grid, unit.cameras(views, ISOCENTRE))(torch.from_numpy(mu).float()[None])[0].numpy()


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("parallel", [False, True], ids=["cone", "parallel"])
def test_ball(name: str, parallel: bool) -> None:
    grid, centre, radius = GRIDS[name], np.add(ISOCENTRE, (11, -17, 8)), 45.0
    mu = 0.02 * inside(grid, ball(centre, radius))
    unit = Geometry(UNIT.sad, UNIT.sdd, UNIT.detector_mm, UNIT.pixels, parallel)
    views = [View(angle) for angle in (0.0, 40.0, 90.0, 200.0)]
    for view, image in zip(views, project(mu, grid, views, unit), strict=True):
        length, distance = chord(*unit.camera(view, ISOCENTRE).rays(), centre, radius)
        core = distance < 0.7 * radius
        assert core.sum() > 40
        assert image[core] == pytest.approx(0.02 * length[core], rel=0.01)
        assert image[distance > radius + 6] == pytest.approx(0, abs=1e-6)
        # The mass in the image is the ball's, edges included.
        assert image.sum() == pytest.approx(0.02 * length.sum(), rel=0.01)


@pytest.mark.parametrize("name", ["anisotropic", "permuted", "tilted"])
def test_box_off_centre(name: str) -> None:
    grid = GRIDS[name]
    low, high = np.add(ISOCENTRE, (-10, -40, -30)), np.add(ISOCENTRE, (44, 12, 6))
    body = lambda points: np.maximum(low - points, points - high).max(-1)  # noqa: E731
    mu = 0.03 * inside(grid, body)
    views = [View(angle) for angle in (0.0, 90.0, 160.0, 270.0)]
    for view, image in zip(views, project(mu, grid, views), strict=True):
        start, end = UNIT.camera(view, ISOCENTRE).rays()
        length = through_box(start, end, low, high)
        # Away from edges: rays that meet the shrunken box and its faces as the grown one does.
        shrunk, grown = through_box(start, end, low + 4, high - 4), through_box(start, end, low - 4, high + 4)
        core = (shrunk > 0) & (grown - shrunk < 20)
        assert core.sum() > 25
        assert image[core] == pytest.approx(0.03 * length[core], rel=0.01)
        assert image[grown == 0] == pytest.approx(0, abs=1e-6)


def test_isocentre_is_what_the_unit_turns_around() -> None:
    grid, centre = GRIDS["isotropic"], np.add(ISOCENTRE, (11, -17, 8))
    mu = torch.from_numpy(0.02 * inside(grid, ball(centre, 30.0))).float()[None]
    moved = np.add(ISOCENTRE, (30, 20, -25))
    for view in (View(0.0), View(90.0)):
        image = ProjectionOperator(grid, UNIT.cameras([view], moved))(mu)[0, 0].numpy()
        length, distance = chord(*UNIT.camera(view, moved).rays(), centre, 30.0)
        assert image[distance < 24] == pytest.approx(0.02 * length[distance < 24], rel=0.01)


# Three balls (x, y, z relative to the isocentre, radius) that no flip or turn maps onto themselves.
MARKERS = (((48.0, -30.0, 40.0), 7.0), ((-36.0, 46.0, 20.0), 5.0), ((10.0, 36.0, -50.0), 9.0))


def by_hand(at: tuple[float, float, float], view: str) -> tuple[float, float]:
    """(row, column) in mm from the detector's middle of a point's shadow; written out for each view."""
    x, y, z = at
    towards, right = {
        "0": (-y, x),
        "90": (x, y),
        "180": (y, -x),
        "270": (-x, -y),
        "pa": (y, x),
        "lateral-left": (-x, y),
    }[view]
    size = 949 / (541 - towards)
    return -z * size, right * size


@pytest.mark.parametrize("view", ["0", "90", "180", "270", "pa", "lateral-left"])
@pytest.mark.parametrize("marker", range(len(MARKERS)))
def test_markers_appear_where_hand_geometry_puts_them(view: str, marker: int) -> None:
    unit = Geometry(541.0, 949.0, 400.0, 100)  # 4 mm pixels
    grid = VolumeGrid.box(ISOCENTRE, (70, 70, 70), 2.0)
    at, radius = MARKERS[marker]
    mu = inside(grid, ball(np.add(ISOCENTRE, at), radius))
    image = project(mu, grid, [View.parse(view)], unit)[0]
    rows, columns = np.mgrid[:100, :100]
    seen = np.array([(rows * image).sum(), (columns * image).sum()]) / image.sum()
    row, column = by_hand(at, view)
    assert seen == pytest.approx([49.5 + row / 4, 49.5 + column / 4], abs=0.25)


def test_linear_and_the_same_in_batches() -> None:
    grid = VolumeGrid.box(ISOCENTRE, (20, 24, 28), 6.0)
    volumes = torch.rand(3, *grid.shape, generator=torch.Generator().manual_seed(1)) * 0.03
    views = [View(10.0), View(100.0, True)]
    unit = UNIT.with_pixels(20)
    together = ProjectionOperator(grid, unit.cameras(views, ISOCENTRE))(volumes)
    assert together.shape == (3, 2, 20, 20)
    for k, view in enumerate(views):
        for b in range(3):
            alone = ProjectionOperator(grid, unit.cameras([view], ISOCENTRE))(volumes[b : b + 1])
            assert torch.allclose(together[b, k], alone[0, 0], rtol=1e-5, atol=1e-6)
    mixed = ProjectionOperator(grid, unit.cameras(views, ISOCENTRE))(2 * volumes[:1] + 0.5 * volumes[1:2])
    assert torch.allclose(mixed[0], 2 * together[0] + 0.5 * together[1], rtol=1e-4, atol=1e-5)


def test_sampling_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = VolumeGrid.box(ISOCENTRE, (20, 24, 28), 6.0)
    mu = torch.rand(1, *grid.shape, generator=torch.Generator().manual_seed(1)) * 0.03
    projector = ProjectionOperator(grid, UNIT.with_pixels(20).cameras([View(10.0)], ISOCENTRE))
    whole = projector.sample(mu)
    monkeypatch.setattr("raylift.drr.operator.SAMPLES_AT_A_TIME", 3 * 20 * 20)
    assert torch.allclose(projector.sample(mu), whole, rtol=1e-5)


@pytest.mark.parametrize(("threads", "step"), [(1, None), (3, None), (2, 0.4)])  # the last: over 256 planes
def test_compiled_sums_are_pytorchs(threads: int, step: float | None) -> None:
    grid = centred((14, 16, 18), (8.0, 7.0, 6.0), TURNED)
    mu = torch.rand(2, *grid.shape, generator=torch.Generator().manual_seed(1)) * 0.03
    mu.requires_grad_()
    projector = ProjectionOperator(
        grid, UNIT.with_pixels(24).cameras([View(0.0), View(37.0), View(90.0)], ISOCENTRE), step
    )
    assert (min(view.planes for view in projector._rays) > 256) == (step is not None)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = projector(mu)
        weights = torch.rand(found.shape, generator=torch.Generator().manual_seed(2))
        (slope,) = torch.autograd.grad((found * weights).sum(), mu)
    finally:
        torch.set_num_threads(before)
    expected = projector.sample(mu)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.max()))
    (expected_slope,) = torch.autograd.grad((expected * weights).sum(), mu)
    assert torch.allclose(slope, expected_slope, rtol=1e-4, atol=1e-4 * float(expected_slope.max()))


def test_gradient_is_the_adjoint() -> None:
    """<A x, y> = <x, Aᵀ y>, and the derivative along a direction is the difference of two projections."""
    grid = centred((14, 16, 18), (8.0, 7.0, 6.0), TURNED)
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(2, *grid.shape, generator=generator) * 0.03
    x.requires_grad_()
    direction = torch.randn(x.shape, generator=generator)
    projector = ProjectionOperator(grid, UNIT.with_pixels(16).cameras([View(0.0), View(75.0)], ISOCENTRE))
    image = projector(x)
    y = torch.rand(image.shape, generator=generator)
    inner = (image.double() * y).sum()
    inner.backward()
    assert x.grad is not None
    step = 1e-2
    with torch.no_grad():
        assert float((x.grad.double() * x).sum()) == pytest.approx(float(inner), rel=1e-4)
        ahead, behind = ((projector(x + s * step * direction).double() * y).sum() for s in (1, -1))
    assert float((ahead - behind) / (2 * step)) == pytest.approx(float((x.grad * direction).double().sum()), rel=1e-3)
    assert not torch.equal(x.grad[0], x.grad[1])


def test_a_volume_beside_the_beam_casts_no_shadow() -> None:
    for away in ((0, 0, 600), (500, 0, 0)):
        grid = VolumeGrid.box(np.add(ISOCENTRE, away), (20, 20, 20), 5.0)
        assert not project(np.ones(grid.shape), grid, [View(0.0)]).any()


def test_a_volume_behind_the_source_or_the_detector() -> None:
    behind_source = VolumeGrid.box(np.add(ISOCENTRE, (0, -700, 0)), (20, 20, 20), 5.0)
    assert not project(np.ones(behind_source.shape), behind_source, [View(0.0)]).any()


def test_a_shape_that_does_not_fit() -> None:
    grid = VolumeGrid.box(ISOCENTRE, (10, 11, 12), 5.0)
    with pytest.raises(ValueError, match=r"\(12, 11, 10\) does not fit"):
        ProjectionOperator(grid, UNIT.cameras([View(0.0)], ISOCENTRE))(torch.zeros(1, 12, 11, 10))


def test_scan_in_hounsfield_units() -> None:
    """A slab of water 100 mm thick that fills the beam: 0.02 per mm along each ray."""
    unit = Geometry(1600.0, 1800.0, 100.0, 8)
    water = np.zeros((40, 20, 40), np.int16)
    water[:, :, :3] = -2000  # far beside the beam, and no less than air
    volume = Volume(water, VolumeGrid.box(ISOCENTRE, water.shape, 5.0))
    (image,) = project_volume(volume, unit, [View(0.0)], ISOCENTRE)
    assert image.dtype == np.float32
    start, end = unit.camera(View(0.0), ISOCENTRE).rays()
    slant = np.linalg.norm(end - start, axis=-1) / 1800
    assert image == pytest.approx(2.0 * slant, rel=0.002)
