"""The thorax is found where a threshold and a bounding box find it, with or without a table."""

import numpy as np
import pytest
from scipy import ndimage

from raylift.data.phantom import thorax_phantom
from raylift.data.thorax import find_thorax
from raylift.errors import BadInput, named
from raylift.geometry import VolumeGrid
from raylift.images.volume import Volume

SEEDS = (0, 1, 2, 3)


def boxes(volume: Volume) -> tuple[np.ndarray, np.ndarray, float]:
    """World corners (2, 3) of the two lungs' and of the body's bounding box, and the lungs' volume in ml."""
    parts, _ = ndimage.label((volume.array > -970) & (volume.array < -600))
    sizes = np.bincount(parts.ravel())[1:]
    lungs = np.isin(parts, 1 + np.argsort(sizes)[-2:])
    area = lungs.sum((1, 2))
    lungs[area < 0.02 * area.max()] = False  # the windpipe above the lungs
    corners = []
    for mask in (lungs, volume.array > -300):
        index = np.argwhere(mask)[:, ::-1]
        ends = np.stack([index.min(0), index.max(0)])
        corners.append(ends * volume.grid.spacing + np.asarray(volume.grid.origin))
    return corners[0], corners[1], float(lungs.sum() * np.prod(volume.grid.spacing) / 1000)


def with_table(volume: Volume, gap: float, thickness: float = 20.0) -> Volume:
    """A flat table of 300 HU, `gap` mm behind the body; it sticks out on the left."""
    _, body, _ = boxes(volume)
    (sx, sy, _), (ox, oy, _) = volume.grid.spacing, volume.grid.origin
    start = round((body[1, 1] + gap - oy) / sy) + 1
    stop = start + round(thickness / sy)
    array = np.pad(volume.array, ((0, 0), (0, max(0, stop + 4 - volume.array.shape[1])), (0, 0)), constant_values=-1000)
    array[:, start:stop, round((body[0, 0] + 80 - ox) / sx) :] = 300
    return Volume(array, VolumeGrid(array.shape, volume.grid.spacing, volume.grid.origin))


@pytest.mark.parametrize("seed", SEEDS)
def test_centre_and_size(seed: int) -> None:
    volume = thorax_phantom(seed, 5.0)
    thorax = find_thorax(volume)
    lungs, body, millilitres = boxes(volume)
    assert thorax.centre[2] == pytest.approx(lungs[:, 2].mean(), abs=10)
    assert thorax.centre[0] == pytest.approx(body[:, 0].mean(), abs=10)
    assert thorax.centre[1] == pytest.approx(body[:, 1].mean(), abs=15)
    assert thorax.lung_mm == pytest.approx(np.ptp(lungs, axis=0) + 5, abs=16)
    assert thorax.lung_ml == pytest.approx(millilitres, rel=0.2)
    assert not thorax.cut_above
    assert not thorax.cut_below


@pytest.mark.parametrize("gap", [15.0, 40.0])
@pytest.mark.parametrize("seed", SEEDS[:2])
def test_a_table_moves_nothing(seed: int, gap: float) -> None:
    volume = thorax_phantom(seed, 5.0)
    alone, lying = find_thorax(volume), find_thorax(with_table(volume, gap))
    assert np.abs(np.subtract(alone.centre, lying.centre)).max() <= 8


@pytest.mark.parametrize("thickness", [10.0, 15.0])
def test_a_table_the_body_lies_on(phantom: Volume, thickness: float) -> None:
    """Where they touch, a table top is told from the body by its thinness."""
    alone, lying = find_thorax(phantom), find_thorax(with_table(phantom, 0.0, thickness))
    assert np.abs(np.subtract(alone.centre, lying.centre)).max() <= 8


def test_the_patient_is_found_wherever_the_scan_puts_it(phantom: Volume) -> None:
    grid = phantom.grid
    moved = Volume(phantom.array, VolumeGrid(grid.shape, grid.spacing, (1000.0, -2000.0, 300.0)))
    shift = np.subtract(find_thorax(moved).centre, find_thorax(phantom).centre)
    assert shift == pytest.approx(np.subtract(moved.grid.origin, grid.origin), abs=0.01)


def test_a_scan_cut_through_the_lungs(phantom: Volume) -> None:
    z = np.asarray(phantom.grid.origin[2]) + 5.0 * np.arange(phantom.grid.shape[0])
    middle = find_thorax(phantom).centre[2]
    x, y, _ = phantom.grid.origin
    upper, lower = z > middle, z <= middle
    above = Volume(phantom.array[upper], VolumeGrid((int(upper.sum()), *phantom.grid.shape[1:]),
                                                    phantom.grid.spacing, (x, y, float(z[upper][0]))))  # fmt: skip
    below = Volume(phantom.array[lower], VolumeGrid((int(lower.sum()), *phantom.grid.shape[1:]),
                                                    phantom.grid.spacing, phantom.grid.origin))  # fmt: skip
    assert (find_thorax(above).cut_below, find_thorax(above).cut_above) == (True, False)
    assert (find_thorax(below).cut_below, find_thorax(below).cut_above) == (False, True)


def test_no_lungs(phantom: Volume) -> None:
    solid = np.stack([ndimage.binary_fill_holes(s) for s in phantom.array > -300])
    body = Volume(np.where(solid, 40, -1000).astype(np.int16), phantom.grid)
    with pytest.raises(BadInput, match=r"^scan: no lungs found \(0 ml"):
        find_thorax(body)


@pytest.mark.parametrize("hu", [-1000, 40])
def test_nothing_but_air_or_water(hu: int) -> None:
    volume = Volume(np.full((30, 30, 30), hu, np.int16), VolumeGrid.cube((0, 0, 0), 300, 30))
    with pytest.raises(BadInput, match="no lungs found"):
        find_thorax(volume)


def test_the_error_can_name_the_file() -> None:
    volume = Volume(np.zeros((30, 30, 30), np.int16), VolumeGrid.cube((0, 0, 0), 300, 30))
    with pytest.raises(BadInput, match=r"^head\.nii\.gz: no lungs found"), named("head.nii.gz"):
        find_thorax(volume)


def test_real_scans_too(scan: Volume) -> None:
    """The cube of 320 mm around the centre holds nearly all lung that a threshold finds in the body."""
    thorax = find_thorax(scan)
    assert 1000 < thorax.lung_ml < 9000
    relative = scan.grid.points()[::4, ::4, ::4] - np.asarray(thorax.centre)
    solid = np.stack([ndimage.binary_fill_holes(s) for s in scan.array[::4] > -300])[:, ::4, ::4]
    lungs = solid & (scan.array[::4, ::4, ::4] < -600)
    assert (np.abs(relative[lungs]) < 160).all(-1).mean() > 0.97


def cropped(volume: Volume, width: float) -> Volume:
    """The middle `width` mm across: a field of view that cuts the flanks off."""
    n = volume.grid.shape[2]
    kept = round(width / volume.grid.spacing[0])
    start = (n - kept) // 2
    x, y, z = volume.grid.origin
    origin = (x + start * volume.grid.spacing[0], y, z)
    grid = VolumeGrid((*volume.grid.shape[:2], kept), volume.grid.spacing, origin)
    return Volume(volume.array[:, :, start : start + kept], grid)


@pytest.mark.parametrize("width", [280, 240])
def test_lungs_open_to_the_edge_of_the_field_of_view(width: float) -> None:
    volume = thorax_phantom(0, 4.0)
    whole, part = find_thorax(volume), find_thorax(cropped(volume, width))
    assert part.lung_ml < whole.lung_ml
    assert np.allclose(part.centre, whole.centre, atol=8)


def test_gas_in_the_bowel_is_no_lung() -> None:
    volume = thorax_phantom(0, 4.0)
    centre = np.asarray(find_thorax(volume).centre)
    gas = np.linalg.norm(volume.grid.points() - np.add(centre, (20, -40, -150)), axis=-1) < 45
    bubble = Volume(np.where(gas, np.int16(-970), volume.array), volume.grid)
    assert np.allclose(find_thorax(bubble).centre, centre, atol=4)


def test_an_arm_beside_the_trunk_does_not_count() -> None:
    volume = thorax_phantom(0, 4.0)
    centre = np.asarray(find_thorax(volume).centre)
    padded = np.pad(volume.array, ((0, 0), (0, 0), (0, 25)), constant_values=-1000)
    grid = VolumeGrid(padded.shape, volume.grid.spacing, volume.grid.origin)
    x, y, _ = np.moveaxis(grid.points() - centre, -1, 0)
    body = np.argwhere((volume.array > -300).any((0, 1))).max() * 4.0 + volume.grid.origin[0] - centre[0]
    arm = np.hypot(x - body - 50, y) < 35
    assert np.allclose(find_thorax(Volume(np.where(arm, np.int16(40), padded), grid)).centre, centre, atol=4)


def test_lungs_that_look_too_low_are_reported() -> None:
    volume = thorax_phantom(0, 4.0)
    assert find_thorax(volume).warnings == []
    half = find_thorax(volume).centre[2] - 20
    white = (volume.grid.points()[..., 2] > half) & (volume.array > -980) & (volume.array < -400)
    filled = Volume(np.where(white, np.int16(30), volume.array), volume.grid)
    (warning,) = find_thorax(filled).warnings
    assert "mm tall" in warning
