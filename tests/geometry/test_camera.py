"""Cameras of any kind: their rays, their projections, and line integrals along them against analytic ones."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from raylift.drr.operator import ProjectionOperator
from raylift.geometry import Beam, Camera, Geometry, Point, View, VolumeGrid

MIDDLE = np.array([20.0, -30.0, 110.0])


def point(vector: Any) -> Point:
    x, y, z = (float(value) for value in vector)
    return (x, y, z)


def random_camera(seed: int) -> Camera:
    """A camera that sees `MIDDLE` from anywhere, with its own beam, tilts, off-centre rectangle and pixel sizes."""
    rng = np.random.default_rng(seed)
    turn = Rotation.random(random_state=seed).as_matrix()
    beam = list(Beam)[seed % 3]
    sad, behind = rng.uniform(500, 1800), rng.uniform(150, 500)
    rows, columns = (int(n) for n in rng.integers(20, 34, 2))
    row_mm, column_mm = rng.uniform(5, 9, 2)
    # The second axis need not be perpendicular to the first.
    right, down = turn[0], turn[1] + rng.uniform(-0.15, 0.15) * turn[0]
    row_step, column_step = row_mm * down, column_mm * right * rng.choice([-1, 1])
    offset = [rows * rng.uniform(0.35, 0.65), columns * rng.uniform(0.35, 0.65)]
    corner = MIDDLE - behind * turn[2] - offset[0] * row_step - offset[1] * column_step
    source = MIDDLE + sad * turn[2] + rng.uniform(-60, 60) * right
    a, b = beam.moves
    source = source - a * offset[0] * row_step - b * offset[1] * column_step
    return Camera(point(source), point(corner), point(row_step), point(column_step), rows, columns, beam)


def chords(start: np.ndarray, end: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
    """Length of the rays within a ball."""
    along = (end - start) / np.linalg.norm(end - start, axis=-1, keepdims=True)
    to_centre = centre - start
    missed = (to_centre**2).sum(-1) - ((to_centre * along).sum(-1)) ** 2
    length: np.ndarray = 2 * np.sqrt(np.maximum(radius**2 - missed, 0))
    return length


def lengths_in_box(
    start: np.ndarray, end: np.ndarray, centre: np.ndarray, axes: np.ndarray, half: np.ndarray
) -> np.ndarray:
    """Length of the rays within a box, whose axes are rows."""
    origin, direction = (start - centre) @ axes.T, (end - start) @ axes.T
    with np.errstate(divide="ignore"):
        one, other = (-half - origin) / direction, (half - origin) / direction
    near, far = np.minimum(one, other).max(-1), np.maximum(one, other).min(-1)
    length: np.ndarray = np.maximum(np.minimum(far, 1) - np.maximum(near, 0), 0) * np.linalg.norm(end - start, axis=-1)
    return length


@pytest.fixture(scope="module")
def grid() -> VolumeGrid:
    return VolumeGrid.box(point(MIDDLE), (75, 75, 75), 2.0)


def shares(inside: np.ndarray) -> torch.Tensor:
    """Voxels of 2 mm (D, H, W) as means of the 4³ points in each, given whether these are inside."""
    return torch.nn.functional.avg_pool3d(torch.from_numpy(inside.astype(np.float32))[None], 4)[0]


def fine_points(grid: VolumeGrid) -> np.ndarray:
    return VolumeGrid.box(grid.centre, (300, 300, 300), 0.5).points()


BALL = (np.add(MIDDLE, (12, -7, 9)), 38.0)
BOX = (
    np.add(MIDDLE, (-8, 10, -5)),
    Rotation.from_euler("xyz", [20, -35, 15], degrees=True).as_matrix(),
    np.array([45.0, 25, 32]),
)


@pytest.fixture(scope="module")
def ball_and_box(grid: VolumeGrid) -> torch.Tensor:
    """A ball and an oblique box, off the middle, (2, D, H, W) in mm⁻¹."""
    points = fine_points(grid)
    ball = shares(((points - BALL[0]) ** 2).sum(-1) < BALL[1] ** 2)
    box = shares((np.abs((points - BOX[0]) @ BOX[1].T) < BOX[2]).all(-1))
    return torch.stack([ball, box])


@pytest.mark.parametrize("seed", range(50))
def test_line_integrals_are_the_analytic_ones(seed: int, grid: VolumeGrid, ball_and_box: torch.Tensor) -> None:
    camera = random_camera(seed)
    found = ProjectionOperator(grid, [camera], step=1.0)(ball_and_box)[:, 0].numpy()
    start, end = np.broadcast_arrays(*camera.rays())
    for image, expected in zip(found, (chords(start, end, *BALL), lengths_in_box(start, end, *BOX)), strict=True):
        assert np.abs(image - expected).mean() < 0.01 * expected.max()
        assert image.sum() == pytest.approx(expected.sum(), rel=0.01)


@pytest.mark.parametrize("seed", range(12))
def test_points_of_a_ray_are_projected_to_its_pixel(seed: int) -> None:
    camera = random_camera(seed)
    start, end = np.broadcast_arrays(*camera.rays())
    pixels = np.stack(np.meshgrid(np.arange(camera.rows), np.arange(camera.columns), indexing="ij"), -1)
    for share in (0.2, 0.7, 1.0):
        np.testing.assert_allclose(camera.project(start + share * (end - start)), pixels, atol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_the_adjoint(seed: int) -> None:
    camera = random_camera(seed)
    A = ProjectionOperator(
        VolumeGrid.box(point(MIDDLE), (11, 12, 13), 12.0), [camera, camera.moved((3, 4, 5), (1, 2, 3), MIDDLE)]
    )
    rng = torch.Generator().manual_seed(seed)
    mu, y = (torch.rand(1, *shape, generator=rng) for shape in (A.domain_shape, A.range_shape))
    assert float((A(mu) * y).sum()) == pytest.approx(float((mu * A.T(y)).sum()), rel=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_other_pixels_and_crops_cover_the_same_detector(seed: int) -> None:
    camera = random_camera(seed)
    finer = camera.with_pixels(2 * camera.rows, 3 * camera.columns)
    points = MIDDLE + np.random.default_rng(seed).normal(size=(9, 3)) * 30
    row, column = camera.project(points).T
    np.testing.assert_allclose(finer.project(points).T, [2 * row + 0.5, 3 * column + 1], atol=1e-9)
    np.testing.assert_allclose(camera.cropped(3, 5, 4, 6).project(points).T, [row - 3, column - 5], atol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_a_moved_camera_sees_a_moved_patient_the_same(seed: int) -> None:
    camera, turn, shift = random_camera(seed), (10.0, -20.0, 30.0), (5.0, 6.0, -7.0)
    points = MIDDLE + np.random.default_rng(seed).normal(size=(9, 3)) * 30
    moved = Rotation.from_rotvec(turn, degrees=True).apply(points - MIDDLE) + MIDDLE + shift
    found = camera.moved(turn, shift, MIDDLE).project(moved)
    np.testing.assert_allclose(found, camera.project(points), atol=1e-8)


@pytest.mark.parametrize("seed", range(6))
def test_the_parallel_camera_at_a_point_sees_its_plane_alike(seed: int) -> None:
    camera = random_camera(seed)
    parallel = camera.at(MIDDLE)
    across = np.stack([camera.row_step, camera.column_step])
    in_plane = MIDDLE + np.random.default_rng(seed).normal(size=(9, 2)) @ across * 3
    np.testing.assert_allclose(parallel.project(in_plane), camera.project(in_plane), atol=1e-8)
    np.testing.assert_allclose(parallel.project(in_plane + 50 * camera.axis), camera.project(in_plane), atol=1e-8)


@pytest.mark.parametrize("name", ["ap", "pa", "lateral-left", "lateral-right", "37"])
def test_a_geometry_writes_cameras_of_its_views(name: str) -> None:
    view, isocentre = View.parse(name), (3.0, -4.0, 5.0)
    camera = Geometry.preset("chest-stand", 40).camera(view, isocentre)
    assert (camera.rows, camera.columns, camera.distance) == (40, 40, pytest.approx(1800))
    assert camera.project(isocentre) == pytest.approx([19.5, 19.5])
    assert camera.view.angle == pytest.approx(view.angle, abs=1e-9)
    assert camera.view.mirrored == view.mirrored
    assert np.asarray(camera.source) == pytest.approx(isocentre + 1600 * view.towards_source)


def test_a_slot_scan_keeps_heights_and_magnifies_across(grid: VolumeGrid) -> None:
    """EOS units and CT topograms: a fan from a source at the height of each row."""
    camera = Camera((-100, -1000, 40), (-100, 300, 40), (0, 0, -2), (2, 0, 0), 41, 101, Beam.SLOT)
    start, _ = camera.rays()
    np.testing.assert_allclose(
        np.broadcast_to(start, (41, 101, 3))[:, 50],
        np.stack([np.full(41, -100), np.full(41, -1000), 40 - 2 * np.arange(41)], 1),
    )
    row, column = camera.project([-30.0, 40.0, 10.0])
    assert row == pytest.approx(15)  # height alone
    assert column == pytest.approx(70 * 1300 / 1040 / 2)  # magnified by the fan


@pytest.mark.parametrize("seed", range(3))
def test_it_survives_json(seed: int) -> None:
    camera = random_camera(seed)
    assert Camera.from_dict(json.loads(json.dumps(camera.to_dict()))) == camera


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"row_step": (1.0, 0.0, 0.0)}, "different directions"),
        ({"source": (5.0, 200.0, 3.0)}, "in the plane of its detector"),
        ({"rows": 0}, "needs pixels"),
    ],
)
def test_what_is_no_camera(change: dict[str, Any], problem: str) -> None:
    whole = {"source": (0.0, -1000, 0), "corner": (0.0, 200, 0), "row_step": (0.0, 0, -1), "column_step": (1.0, 0, 0)}
    with pytest.raises(ValueError, match=problem):
        Camera(**{"rows": 4, "columns": 4, **whole, **change})
