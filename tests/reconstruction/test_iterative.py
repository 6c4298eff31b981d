"""Iterative reconstruction: it solves the system it says, and lands in the right place."""

import numpy as np
import pytest

from raylift.drr.projector import project_volume
from raylift.geometry import Geometry, View, VolumeGrid
from raylift.images.volume import Volume
from raylift.images.xray_set import XraySet
from raylift.reconstruction.iterative import ITERATIVE, System, cgls, sart_tv

ISOCENTRE = (30.0, -40.0, 200.0)
CUBE = VolumeGrid.cube(ISOCENTRE, 320.0, 16)  # 20 mm
UNIT = Geometry.preset("chest-stand", 32)
ANGLES = tuple(View(angle) for angle in (0.0, 45.0, 90.0, 135.0))


def body() -> Volume:
    """Water with a dense ball to the left, in front and above of the isocentre, and something beside the cube."""
    grid = VolumeGrid.box(ISOCENTRE, (22, 20, 24), 20.0)
    points = grid.points() - np.asarray(ISOCENTRE)
    hu = np.where(np.hypot(points[..., 0] / 140, points[..., 1] / 100) < 1, 0.0, -1000.0)
    hu[np.linalg.norm(points - np.array([60.0, -40.0, 60.0]), axis=-1) < 45] = 800.0
    hu[..., -2:] = 0.0  # an arm, outside of the cube
    return Volume(hu.astype(np.float32), grid)


@pytest.fixture(scope="module")
def xrays() -> XraySet:
    images = project_volume(body(), UNIT, ANGLES, ISOCENTRE)
    return XraySet(images, ANGLES, UNIT, ISOCENTRE)


def truth() -> np.ndarray:
    return body().resample(CUBE).array


def test_the_adjoint_is_the_adjoint(xrays: XraySet) -> None:
    system = System(xrays, CUBE)
    random = np.random.default_rng(0)
    mu, y = random.random(system.shape, np.float32), random.random(system.b.shape, np.float32)
    forward, backward = (system.project(mu) * y).sum(dtype=float), (mu * system.adjoint(y)).sum(dtype=float)
    assert forward == pytest.approx(backward, rel=1e-4)


def test_cgls_is_the_least_squares_solution_by_its_iterates(xrays: XraySet) -> None:
    """The first iterate of CGLS by hand: x = Aᵀb · ‖Aᵀb‖² / ‖A Aᵀb‖²."""
    system = System(xrays, CUBE)
    gradient = system.adjoint(system.b).astype(float)
    image = system.project(gradient.astype(np.float32)).astype(float)
    expected = gradient * (gradient**2).sum() / (image**2).sum()
    found = cgls(xrays, CUBE, iterations=1).array
    assert np.allclose(found, system.volume(expected.astype(np.float32)).array, atol=2)


@pytest.mark.parametrize("name", ITERATIVE)
def test_finds_the_ball_where_it_is(name: str, xrays: XraySet) -> None:
    volume = ITERATIVE[name](xrays, CUBE)
    assert volume.grid == CUBE
    assert volume.array.min() >= -1000
    ball = truth() > 400
    for axis in range(3):
        mirrored = np.flip(ball, axis) & ~ball
        assert volume.array[ball].mean() > volume.array[mirrored].mean() + 100, axis
    guess = np.abs(truth().mean() - truth()).mean()
    assert np.abs(volume.array - truth()).mean() < 0.6 * guess


def test_more_iterations_fit_the_rays_better(xrays: XraySet) -> None:
    system = System(xrays, CUBE)

    def misfit(volume: Volume) -> float:
        return float(np.abs(project_volume(volume, UNIT, ANGLES, ISOCENTRE) - system.b).mean())

    assert misfit(cgls(xrays, CUBE, 8)) < misfit(cgls(xrays, CUBE, 2))
    assert misfit(sart_tv(xrays, CUBE, 8)) < misfit(sart_tv(xrays, CUBE, 1))


def test_total_variation_makes_flat(xrays: XraySet) -> None:
    def variation(volume: Volume) -> float:
        return float(sum(np.abs(np.diff(volume.array, axis=axis)).mean() for axis in range(3)))

    assert variation(sart_tv(xrays, CUBE, 5, smoothing=0.5)) < 0.7 * variation(sart_tv(xrays, CUBE, 5, smoothing=1e-4))
