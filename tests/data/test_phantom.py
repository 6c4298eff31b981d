import numpy as np
import pytest
from scipy.ndimage import label

from raylift.data.phantom import thorax_phantom
from raylift.geometry import IDENTITY
from raylift.images.volume import Volume

SEEDS = (0, 1, 2, 3)


@pytest.fixture(scope="module", params=SEEDS)
def chest(request: pytest.FixtureRequest) -> Volume:
    return thorax_phantom(request.param, 4.0)


def lungs(volume: Volume) -> dict[str, np.ndarray]:
    """Masks of the two largest connected regions of lung density, by the side of the patient they lie on."""
    parts, _ = label((volume.array > -960) & (volume.array < -700))
    sizes = np.bincount(parts.ravel())[1:]
    masks = [parts == 1 + i for i in np.argsort(sizes)[-2:]]
    masks.sort(key=lambda mask: np.nonzero(mask)[2].mean())
    return dict(zip(("right", "left"), masks, strict=True))


def centroid(volume: Volume, mask: np.ndarray) -> np.ndarray:
    """World position (x, y, z) in mm of a mask's centre of mass."""
    index = np.mean(np.nonzero(mask), 1)[::-1]
    return volume.grid.index_to_world[:3] @ [*index, 1.0]


def litres(volume: Volume, mask: np.ndarray) -> float:
    return mask.sum() * np.prod(volume.grid.spacing) / 1e6


def soft(volume: Volume) -> np.ndarray:
    return (volume.array > 0) & (volume.array < 250)


def bone(volume: Volume) -> np.ndarray:
    return volume.array > 300


def test_same_seed_same_voxels() -> None:
    first, second = thorax_phantom(7, 6.0), thorax_phantom(7, 6.0)
    assert first.grid == second.grid
    assert np.array_equal(first.array, second.array)


def test_another_seed_is_another_patient() -> None:
    patients = [thorax_phantom(seed, 6.0) for seed in SEEDS]
    assert len({patient.grid.origin for patient in patients}) == len(SEEDS)
    # Compared at the same distance from the middle, the anatomy differs by far more than the noise of 10 HU.
    n = min(min(patient.array.shape) for patient in patients)
    cubes = []
    for patient in patients:
        corner = [(size - n) // 2 for size in patient.array.shape]
        cubes.append(patient.array[tuple(slice(c, c + n) for c in corner)].astype(float))
    for i, cube in enumerate(cubes):
        for other in cubes[:i]:
            assert np.abs(cube - other).mean() > 50


def test_grid_and_values(chest: Volume) -> None:
    assert chest.array.dtype == np.int16
    assert chest.grid.direction == IDENTITY
    assert all(abs(o) > 1 for o in chest.grid.origin)
    assert all(n * s >= 320 for n, s in zip(chest.grid.shape[::-1], chest.grid.spacing, strict=True))
    assert chest.array.min() >= -1024
    assert 400 < chest.array.max() < 1200
    air = chest.array[:, :5, :5].astype(float)
    assert air.mean() == pytest.approx(-1000, abs=2)
    assert air.std() == pytest.approx(10, abs=1.5)


def test_two_lungs_the_right_one_larger(chest: Volume) -> None:
    masks = lungs(chest)
    right, left = litres(chest, masks["right"]), litres(chest, masks["left"])
    assert 1 < left < right < 4
    for mask in masks.values():
        assert -900 < chest.array[mask].mean() < -780
    assert centroid(chest, masks["left"])[0] - centroid(chest, masks["right"])[0] > 100  # +x is left


def test_heart_lies_left_and_liver_right(chest: Volume) -> None:
    x = chest.grid.origin[0] + np.arange(chest.grid.shape[2]) * chest.grid.spacing[0]
    spine = centroid(chest, bone(chest))[0]
    masks = lungs(chest)
    slices = np.nonzero(masks["left"] | masks["right"])
    base, top = slices[0].min(), slices[0].max()
    columns = np.nonzero((masks["left"] | masks["right"]).any((0, 1)))[0]
    rows = np.nonzero((masks["left"] | masks["right"]).any((0, 2)))[0]

    # Between the lungs' front and middle, where the spine and most of the chest wall are out of the way.
    inside = np.zeros(chest.array.shape, bool)
    inside[:, rows[0] + 6 : (rows[0] + rows[-1]) // 2 + 1, columns[0] + 6 : columns[-1] - 5] = True
    heart = (soft(chest) & inside)[base + (top - base) * 45 // 100 : base + (top - base) * 55 // 100]
    assert (heart & (x > spine)).sum() > 1.5 * (heart & (x < spine)).sum()
    # Just above both sulci the liver is one block of soft tissue; left of it there are stomach gas and fat.
    liver = (soft(chest) & inside)[base : base + (top - base) * 15 // 100]
    assert (liver & (x < spine)).sum() > 1.2 * (liver & (x > spine)).sum()


def test_right_dome_of_the_diaphragm_is_higher(chest: Volume) -> None:
    # The lowest lung voxel of each column is on the dome; its highest point is the dome's top.
    masks = lungs(chest)
    tops = {}
    for side, mask in masks.items():
        lowest = np.where(mask.any(0), mask.argmax(0), 0)
        areas = mask.any(0) & (lowest < mask.shape[0] // 2)
        tops[side] = np.percentile(lowest[areas], 80)
    assert tops["right"] > tops["left"]


def test_not_its_own_mirror_image(chest: Volume) -> None:
    body = chest.array > -900
    difference = np.abs(chest.array.astype(float) - chest.array[:, :, ::-1])
    assert difference[body].mean() > 60


def test_spine_behind_the_heart_and_ribs_around_the_lungs(chest: Volume) -> None:
    masks = lungs(chest)
    middle = centroid(chest, masks["right"] | masks["left"])
    z, y, x = np.nonzero(bone(chest))
    world = np.stack([x, y, z], -1) * chest.grid.spacing + chest.grid.origin
    # Near the midline most bone is the spine, well behind the lungs' middle; the rest is the sternum.
    depth = world[np.abs(world[:, 0] - middle[0]) < 25, 1] - middle[1]
    assert (depth > 20).mean() > 0.7
    assert (depth < -40).any()
    # Going down the flank halfway between front and back, rib follows rib with muscle in between.
    row = round((middle[1] - chest.grid.origin[1]) / chest.grid.spacing[1])
    for side, mask in masks.items():
        columns = np.nonzero(mask.any((0, 1)))[0]
        edge = columns[0] if side == "right" else columns[-1]
        beside = slice(None, edge + 1) if side == "right" else slice(edge, None)
        along = bone(chest)[: mask.any((1, 2)).nonzero()[0][-1], row, beside].any(1)
        assert 5 <= np.count_nonzero(np.diff(along.astype(int)) == 1) <= 10


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_another_spacing_samples_the_same_patient(seed: int) -> None:
    fine, coarse = thorax_phantom(seed, 2.5), thorax_phantom(seed, 5.0)
    assert coarse.grid.centre == pytest.approx(fine.grid.centre)
    assert coarse.array.mean() == pytest.approx(fine.array.mean(), abs=5)
    resampled = fine.resample(coarse.grid)
    inner = (slice(2, -2),) * 3
    error = np.abs(resampled.array[inner] - coarse.array[inner])
    assert np.median(error) < 15
    assert error.mean() < 30
