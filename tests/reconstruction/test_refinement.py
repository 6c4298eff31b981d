"""Refinement: towards the truth, never away from the X-rays, and within its time."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from raylift.drr.projector import project_volume
from raylift.geometry import Geometry, View, VolumeGrid
from raylift.images.hounsfield import normalised_to_hu
from raylift.images.volume import Volume
from raylift.images.xray_set import XraySet
from raylift.reconstruction import refinement
from raylift.reconstruction.iterative import System
from raylift.reconstruction.refinement import prior_deviation, refine, surround

ISOCENTRE = (30.0, -40.0, 200.0)
CUBE = VolumeGrid.cube(ISOCENTRE, 320.0, 32)  # 10 mm
UNIT = Geometry.preset("chest-stand", 48)
VIEWS = (View(0.0), View(90.0))


def body(left: float = 0.0, up: float = 0.0, grid: VolumeGrid = CUBE) -> Volume:
    """Water around a lung, whose place is given in mm, in an ellipse; nothing here is its own mirror image."""
    x, y, z = np.moveaxis(grid.points() - np.asarray(ISOCENTRE), -1, 0)
    hu = np.where((x / 140) ** 2 + (y / 100) ** 2 + ((z - 10) / 170) ** 2 < 1, 40.0, -1000.0)
    hu[((x - 50 - left) / 50) ** 2 + ((y + 20) / 60) ** 2 + ((z - 20 - up) / 80) ** 2 < 1] = -800.0
    return Volume(hu.astype(np.float32), grid)


def blurred(volume: Volume) -> Volume:
    """What a network that does not know the borders says."""
    return Volume(gaussian_filter(volume.array, 1.5), volume.grid)


@pytest.fixture(scope="module")
def xrays() -> XraySet:
    fine = VolumeGrid.cube(ISOCENTRE, 400.0, 80)
    return XraySet(project_volume(body(grid=fine), UNIT, VIEWS, ISOCENTRE), VIEWS, UNIT, ISOCENTRE)


def off(volume: Volume) -> float:
    """Mean absolute error in HU."""
    return float(np.abs(volume.array - body().array).mean())


def test_a_misplaced_lung_moves_to_where_the_xrays_have_it(xrays: XraySet) -> None:
    start = blurred(body(left=12.0, up=-10.0))
    made = refine(start, xrays)
    assert made.volume.grid == CUBE
    assert made.error_after < 0.3 * made.error_before
    assert off(made.volume) < 0.8 * off(start)


def test_a_denser_surrounding_is_not_put_into_the_cube(xrays: XraySet) -> None:
    """Arms beside the cube explain their shadow themselves."""
    fine = VolumeGrid.box(ISOCENTRE, (80, 80, 100), 5.0)
    scan = body(grid=fine)
    across = fine.points()[..., 0] - ISOCENTRE[0]
    scan.array[(across > 180) & (scan.array < -900)] = 0.0
    seen = replace(xrays, images=project_volume(scan, UNIT, VIEWS, ISOCENTRE))
    made = refine(blurred(body()), seen)
    assert made.error_after < 0.3 * made.error_before
    assert off(made.volume) < off(blurred(body())) + 10


def test_errors_are_those_of_the_whole_box(xrays: XraySet) -> None:
    """Computed again by the engine that makes X-rays, on the box as a scan."""
    start = blurred(body(left=12.0))
    system = System(xrays, CUBE)
    scan = Volume(normalised_to_hu(surround(start, system)), system.A.grid)
    again = project_volume(scan, UNIT, VIEWS, ISOCENTRE)
    expected = np.abs(again - xrays.images).mean() / xrays.images.mean()
    assert refine(start, xrays).error_before == pytest.approx(expected, rel=1e-3)


def test_the_cube_is_a_part_of_its_surroundings(xrays: XraySet) -> None:
    system = System(xrays, CUBE)
    box = surround(body(), system)
    assert normalised_to_hu(box[system.inside]) == pytest.approx(body().array, abs=0.01)
    # Two voxels of 10 mm beyond the lower face, which shows water in its middle.
    z = system.margins[0]
    edge = box[z, box.shape[1] // 2, box.shape[2] // 2]
    assert box[z - 2, box.shape[1] // 2, box.shape[2] // 2] == pytest.approx(edge * np.exp(-20 / 60))


def test_what_may_be_tissue_or_air_is_uncertain(xrays: XraySet) -> None:
    system = System(xrays, CUBE)
    box = np.zeros(system.shape, np.float32)
    box[..., system.shape[2] // 2] = 0.25  # √(0.05² + 0.35 · 0.25 · 0.3)
    box[..., system.shape[2] // 2 + 1] = 0.8
    s = prior_deviation(box, system)
    middle = s[system.shape[0] // 2, system.shape[1] // 2]
    assert middle[system.shape[2] // 2 - 1 :][:3] == pytest.approx([0.05, 0.16956, 0.05], rel=1e-3)
    assert s[0, 0, 0] > s[system.inside].max()


def test_changes_are_made_where_there_is_uncertainty(xrays: XraySet) -> None:
    start = blurred(body(left=12.0, up=-10.0))
    right = CUBE.points()[..., 0] < ISOCENTRE[0]
    uncertainty = Volume(np.where(right, 0.0, 300.0).astype(np.float32), CUBE)
    change = np.abs(refine(start, xrays, uncertainty=uncertainty).volume.array - start.array)
    assert change[~right].mean() > 5 * change[right].mean() > 0


def test_stops_where_there_is_only_noise(xrays: XraySet) -> None:
    coarse = VolumeGrid.cube(ISOCENTRE, 320.0, 32)
    system = System(xrays, coarse)
    own = Volume(normalised_to_hu(surround(body(), system)), system.A.grid)
    explained = replace(xrays, images=project_volume(own, UNIT, VIEWS, ISOCENTRE))
    made = refine(body(), explained)
    assert made.iterations == 0
    np.testing.assert_array_equal(made.volume.array, body().array)


def test_the_time_limit_is_kept(xrays: XraySet, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 10))  # 10 seconds between any two looks at it
    monkeypatch.setattr(refinement, "monotonic", lambda: next(clock))
    seen: list[tuple[int, int]] = []
    made = refine(blurred(body(left=12.0)), xrays, 35.0, lambda note, done, total: seen.append((done, total)))
    assert made.iterations == 3
    assert seen == [(done, refinement.ITERATIONS) for done in (1, 2, 3)]
    assert refine(blurred(body()), xrays, 0.0).iterations == 0


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_not_finite_gives_the_start(xrays: XraySet, wrong: float) -> None:
    holed = xrays.images.copy()
    holed[0, 5, 5] = wrong
    start = blurred(body())
    made = refine(start, replace(xrays, images=holed))
    assert made.iterations == 0
    np.testing.assert_array_equal(made.volume.array, start.array)


def test_never_further_from_the_xrays_than_the_start(xrays: XraySet, monkeypatch: pytest.MonkeyPatch) -> None:
    # X-rays count for nothing, and a price pulls a volume flat that explains them nearly.
    monkeypatch.setattr(refinement, "SMOOTHNESS", 1e3)
    monkeypatch.setattr(refinement, "NOISE", 1e3)
    made = refine(body(), xrays)
    assert made.iterations < refinement.ITERATIONS
    assert made.error_after <= made.error_before


def test_finer_pixels_and_voxels_change_little(xrays: XraySet) -> None:
    """Twice as many rays of the same body, and half the voxel, are no other evidence."""
    finer = UNIT.with_pixels(96)
    whole = body(grid=VolumeGrid.cube(ISOCENTRE, 400.0, 80))
    more = XraySet(project_volume(whole, finer, VIEWS, ISOCENTRE), VIEWS, finer, ISOCENTRE)

    def share_left(given: XraySet, grid: VolumeGrid, blur: float) -> float:
        truth, start = body(grid=grid).array, body(left=12.0, up=-10.0, grid=grid)
        start = Volume(gaussian_filter(start.array, blur), grid)
        return float(np.abs(refine(start, given).volume.array - truth).mean() / np.abs(start.array - truth).mean())

    plain = share_left(xrays, CUBE, 1.5)
    assert share_left(more, CUBE, 1.5) == pytest.approx(plain, abs=0.05)
    assert share_left(more, VolumeGrid.cube(ISOCENTRE, 320.0, 64), 3.0) == pytest.approx(plain, abs=0.05)


def test_what_lies_beyond_the_window_is_clipped(xrays: XraySet) -> None:
    start = body()
    start.array[16, 16, 16] = 3000.0
    assert refine(start, xrays, seconds=0).volume.array.max() == 1000.0
