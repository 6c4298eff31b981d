"""Alignment: displaced views are found again, against a volume that is known."""

from dataclasses import replace

import numpy as np
import pytest

from raylift.drr.projector import project_volume
from raylift.geometry import Geometry, View, VolumeGrid
from raylift.images.volume import Volume
from raylift.images.xray_set import XraySet
from raylift.reconstruction.alignment import ROUNDS, align, displace

ISOCENTRE = (30.0, -40.0, 200.0)
CUBE = VolumeGrid.cube(ISOCENTRE, 320.0, 64)
UNIT = Geometry.preset("chest-stand", 128)
VIEWS = (View(0.0), View(270.0, True))


@pytest.fixture(scope="module")
def body() -> Volume:
    """Balls of different sizes and densities in a box of water, all within the cube and none a mirror image."""
    points = CUBE.points() - np.asarray(ISOCENTRE)
    hu = np.where((np.abs(points - [5, -10, 15]) < [110, 80, 120]).all(-1), 0.0, -1000.0)
    rng = np.random.default_rng(0)
    for _ in range(25):
        centre, radius = rng.uniform(-1, 1, 3) * [90, 65, 100], rng.uniform(12, 30)
        hu[np.linalg.norm(points - centre, axis=-1) < radius] = rng.choice([-800.0, 700.0])
    return Volume(hu.astype(np.float32), CUBE)


def seen(body: Volume, displacements: np.ndarray) -> XraySet:
    """X-rays of displaced views that say they were not."""
    images = project_volume(body, UNIT, displace(VIEWS, displacements), ISOCENTRE)
    return XraySet(images, VIEWS, UNIT, ISOCENTRE)


def found(volume: Volume, xrays: XraySet, motions: tuple[int, ...] = ROUNDS[-1]) -> np.ndarray:
    return np.array([[*view.turn, *view.shift] for view in align(volume, xrays, motions)])


def test_nothing_is_found_where_nothing_is_displace(body: Volume) -> None:
    assert np.abs(found(body, seen(body, np.zeros((2, 6))))).max() < 0.1


@pytest.mark.parametrize(
    ("motions", "true"),
    [
        # Each view's turn about its own axis (y for the frontal, x for the lateral view), and shifts up and down.
        (ROUNDS[0], [[0, 3.0, 0, 0, 0, 8.0], [-4.0, 0, 0, 0, 0, -6.0]]),
        # Tilts as well.
        (ROUNDS[1], [[4.0, 3.0, 0, 0, 0, 8.0], [-4.0, 2.0, 0, 0, 0, -6.0]]),
    ],
)
def test_displacements_are_found(body: Volume, motions: tuple[int, ...], true: list[list[float]]) -> None:
    made = found(body, seen(body, np.array(true)), motions)
    wanted = np.array(true) - np.mean(true, 0)
    assert np.abs(made - wanted)[:, :3].max() < 0.5  # degrees
    assert np.abs(made - wanted)[:, 3:].max() < 1.0  # mm
    np.testing.assert_allclose(made.mean(0), 0, atol=1e-9)


def test_the_search_goes_on_from_the_views_given(body: Volume) -> None:
    """What is not searched for stays as it is: here a turn about the patient's long axis."""
    true = np.array([[0, 1.0, 4.0, 0, 0, 8.0], [0, -1.0, -4.0, 0, 0, -8.0]])
    xrays = seen(body, true)
    halfway = displace(VIEWS, true * [1, 0.5, 1, 1, 1, 0.5])
    assert found(body, replace(xrays, views=halfway)) == pytest.approx(true, abs=0.5)


def test_outside_of_the_cube_counts_little(body: Volume) -> None:
    """Shoulders above the cube, which the volume does not know."""
    grid = VolumeGrid.box(ISOCENTRE, (88, 80, 96), 5.0)
    scan = body.resample(grid, smooth=False)
    scan.array[-8:, 30:50, 10:86] = 0.0
    true = np.array([[0, 3.0, 0, 0, 0, 8.0], [-3.0, 0, 0, 0, 0, -8.0]])
    made = found(body, seen(scan, true))
    wanted = true - true.mean(0)
    assert np.abs(made - wanted)[:, :3].max() < 1.0
    assert np.abs(made - wanted)[:, 3:].max() < 2.0


def test_a_displacement_that_all_views_share_is_kept(body: Volume) -> None:
    shared = np.array([[0, 0, 3.0, 0, 12.0, 0]] * 2)
    where = displace(VIEWS, shared)
    images = project_volume(body, UNIT, where, ISOCENTRE)
    assert found(body, XraySet(images, where, UNIT, ISOCENTRE)) == pytest.approx(shared, abs=0.1)


def test_one_view_stays_where_it_is(body: Volume) -> None:
    (where,) = displace(VIEWS[:1], np.array([[0, 3.0, 0, 8.0, 0, 0]]))
    xrays = XraySet(project_volume(body, UNIT, VIEWS[:1], ISOCENTRE), (where,), UNIT, ISOCENTRE)
    assert align(body, xrays) == (where,)
