"""A warp puts tissue where its formula says. Scans whose value is a coordinate show the whole map at once."""

import math

import numpy as np
import pytest
import torch

from raylift.config.recipe import AugmentationConfig
from raylift.data.warp import Warp, _sample, _sample_torch, scan_coverage
from raylift.geometry import VolumeGrid

ISOCENTRE = torch.tensor([30.0, -120.0, -250.0], dtype=torch.float64)
SOURCE = VolumeGrid.box(ISOCENTRE.tolist(), (60, 66, 72), 5.0)
TARGET = VolumeGrid.box((0, 0, 0), (30, 28, 26), 6.0)  # positions relative to the isocentre
EVERYWHERE = (-math.inf, math.inf)
STILL = torch.zeros(3, 9, 9, 9)


def warp(
    matrix: object = ((1, 0, 0), (0, 1, 0), (0, 0, 1)), shift: tuple[float, ...] = (0, 0, 0), gain: float = 1.0
) -> Warp:
    double = {"dtype": torch.float64}
    return Warp(torch.tensor(matrix, **double), torch.tensor(shift, **double), STILL, gain, EVERYWHERE)


def hounsfield(some: Warp, hu: torch.Tensor, target: VolumeGrid) -> torch.Tensor:
    return some.density(hu, SOURCE, target, ISOCENTRE) - 1000


def coordinates(some: Warp, target: VolumeGrid = TARGET) -> np.ndarray:
    """Old positions (z, y, x, 3) relative to the isocentre that the target's voxels take their tissue from."""
    old = []
    for axis in range(3):
        ramp = torch.from_numpy(SOURCE.points()[..., axis] - ISOCENTRE[axis].item()).float()
        old.append(hounsfield(some, ramp, target).numpy())
    return np.stack(old, -1)


def seen_at(some: Warp, blob: tuple[float, float, float]) -> np.ndarray:
    """Where a ball at `blob` (x, y, z from the isocentre) comes to lie."""
    distance = np.linalg.norm(SOURCE.points() - ISOCENTRE.numpy() - blob, axis=-1)
    hu = torch.from_numpy(1000 * np.clip((14 - distance) / 5 + 0.5, 0, 1) - 1000).float()
    mass = hounsfield(some, hu, TARGET).numpy() + 1000.0
    return (mass[..., None] * TARGET.points()).sum((0, 1, 2)) / mass.sum()


def test_identity_gives_the_scan_itself() -> None:
    hu = torch.randint(-1000, 1500, SOURCE.shape, generator=torch.Generator().manual_seed(0)).float()
    corner = [o + 5.0 * k - c for o, k, c in zip(SOURCE.origin, (7, 5, 3), ISOCENTRE.tolist(), strict=True)]
    part = VolumeGrid((40, 37, 42), (5.0, 5.0, 5.0), tuple(corner))  # type: ignore[arg-type]
    got = hounsfield(warp(), hu, part)
    assert torch.allclose(got, hu[3:43, 5:42, 7:49], atol=0.5)


def test_beside_the_scan_is_air_and_its_ends_go_on() -> None:
    hu = torch.zeros(SOURCE.shape)
    hu[0], hu[-1] = 300, -300
    wide = VolumeGrid.box((0, 0, 0), (40, 40, 40), 15.0)
    got = hounsfield(warp(), hu, wide).numpy()
    off, half = np.abs(wide.points()), np.array(SOURCE.shape[::-1]) * 2.5
    beside, within = (off[..., :2] > half[:2] + 5).any(-1), (off[..., :2] < half[:2] - 5).all(-1)
    z = wide.points()[..., 2]
    assert got[beside] == pytest.approx(-1000, abs=0.01)
    assert got[within & (off[..., 2] < half[2] - 8)] == pytest.approx(0, abs=0.01)
    assert got[within & (z < -half[2])] == pytest.approx(300, abs=0.01)
    assert got[within & (z > half[2])] == pytest.approx(-300, abs=0.1)


def test_a_shift_takes_tissue_from_that_far() -> None:
    """Tissue from 20 mm to the left moves 20 mm to the right."""
    assert seen_at(warp(shift=(20, -10, 30)), (25, 5, -10)) == pytest.approx([5, 15, -40], abs=0.3)


@pytest.mark.parametrize("axis", range(3))
def test_a_turn_by_hand(axis: int) -> None:
    # New (x, y, z) → old: a quarter turn about the axis, which the tissue undoes.
    matrices = (
        ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
        ((0, 0, 1), (0, 1, 0), (-1, 0, 0)),
        ((0, -1, 0), (1, 0, 0), (0, 0, 1)),
    )
    moved = ((20, 40, 30), (-40, -30, 20), (-30, -20, 40))[axis]
    assert seen_at(warp(matrices[axis]), (20, -30, 40)) == pytest.approx(moved, abs=0.3)


def test_a_larger_matrix_makes_a_smaller_patient() -> None:
    double = ((1.25, 0, 0), (0, 1, 0), (0, 0, 0.8))
    assert seen_at(warp(double), (25, -30, 32)) == pytest.approx([20, -30, 40], abs=0.3)


def test_the_whole_map_is_affine_to_the_edge() -> None:
    some = warp(((0.9, 0.2, 0), (-0.1, 1.1, 0.05), (0, 0.1, 1)), (8, -6, 4))
    expected = TARGET.points() @ some.matrix.numpy().T + (8, -6, 4)
    assert coordinates(some) == pytest.approx(expected, abs=0.02)


def test_gain_scales_the_attenuation() -> None:
    hu = torch.full(SOURCE.shape, 200.0)
    assert hounsfield(warp(gain=0.9), hu, TARGET).numpy() == pytest.approx(1200 * 0.9 - 1000, abs=0.01)


def test_a_scan_ends_where_it_did() -> None:
    # 60 slices of 5 mm around the isocentre; old z = 1.25 z + 10.
    assert warp().ends(SOURCE, ISOCENTRE) == pytest.approx((-150, 150), abs=0.1)
    larger = warp(((1, 0, 0), (0, 1, 0), (0, 0, 1.25)), (0, 0, 10))
    assert larger.ends(SOURCE, ISOCENTRE) == pytest.approx((-128, 112), abs=0.1)


def test_a_tilted_scan_ends_in_planes_through_its_middle() -> None:
    tilt = math.radians(10)
    some = warp(((1, 0, 0), (0, math.cos(tilt), -math.sin(tilt)), (0, math.sin(tilt), math.cos(tilt))))
    assert some.ends(SOURCE, ISOCENTRE) == pytest.approx((-150 / math.cos(tilt), 150 / math.cos(tilt)), abs=0.1)


def test_truncation_ends_the_scan() -> None:
    cut = Warp(torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), STILL, 1.0, (-40.0, 161.0))
    assert cut.ends(SOURCE, ISOCENTRE) == pytest.approx((-40, 150), abs=0.1)


def test_slices_are_covered_by_their_share() -> None:
    grid = VolumeGrid.box((0, 0, 0), (6, 2, 2), 4.0)  # slices from -12 to 12
    assert scan_coverage(grid, (-9.0, 4.0)).flatten().tolist() == pytest.approx([0.25, 1, 1, 1, 0, 0])
    assert scan_coverage(grid, EVERYWHERE).flatten().tolist() == [1] * 6
    assert scan_coverage(grid, (-1.0, 1.0)).flatten().tolist() == pytest.approx([0, 0, 0.25, 0.25, 0, 0])


# --- Drawing --------------------------------------------------------------------------------------------------------


def draws(settings: AugmentationConfig, count: int) -> list[Warp]:
    generator = torch.Generator().manual_seed(5)
    return [Warp.draw(settings, generator) for _ in range(count)]


def test_nothing_asked_nothing_changed() -> None:
    (some,) = draws(AugmentationConfig(), 1)
    assert torch.equal(some.matrix, torch.eye(3, dtype=torch.float64))
    assert not some.shift.any()
    assert not some.controls.any()
    assert (some.gain, some.z_range) == (1.0, EVERYWHERE)


def test_the_same_generator_gives_the_same_warp() -> None:
    settings = AugmentationConfig(rotation=10, scaling=0.1, shift=20, elastic=5, intensity=0.1, truncation=0.5)
    first, second, other = (coordinates(Warp.draw(settings, torch.Generator().manual_seed(seed))) for seed in (3, 3, 4))
    assert np.array_equal(first, second)
    assert np.abs(first - other).max() > 5


def test_turns_are_rigid_and_within_their_range() -> None:
    angles = []
    for some in draws(AugmentationConfig(rotation=12), 300):
        matrix = some.matrix.numpy()
        assert matrix @ matrix.T == pytest.approx(np.eye(3), abs=1e-12)
        assert np.linalg.det(matrix) == pytest.approx(1)
        # Rz·Ry·Rx: its entries give the three angles back.
        angles.append([math.atan2(matrix[2, 1], matrix[2, 2]), math.asin(matrix[2, 0]),
                       math.atan2(matrix[1, 0], matrix[0, 0])])  # fmt: skip
    degrees = np.degrees(angles)
    assert np.abs(degrees).max() <= 12 + 1e-9
    assert np.abs(degrees).max(0).min() > 11  # and reaches it
    assert degrees.std(0) == pytest.approx([12 / math.sqrt(3)] * 3, rel=0.12)
    assert degrees.mean(0) == pytest.approx([0, 0, 0], abs=1.5)


def test_sizes_shifts_and_gains_stay_within_their_range() -> None:
    many = draws(AugmentationConfig(scaling=0.2, shift=30, intensity=0.05), 300)
    matrices = np.stack([some.matrix.numpy() for some in many])
    scales = matrices[:, range(3), range(3)]
    assert np.abs(matrices - scales[:, None, :] * np.eye(3)).max() == 0
    assert scales.min() >= 0.8 * 0.9
    assert scales.max() <= 1.2 * 1.1
    # The axes go together by ±20 %, apart by ±10 %.
    assert scales.mean(1).std() == pytest.approx(0.2 / math.sqrt(3), rel=0.2)
    assert (scales[:, 0] / scales[:, 1] - 1).std() == pytest.approx(0.1 * math.sqrt(2 / 3), rel=0.2)
    shifts = np.stack([some.shift.numpy() for some in many])
    assert 28 < np.abs(shifts).max() <= 30
    gains = [some.gain for some in many]
    assert 0.95 <= min(gains) < 0.96
    assert 1.04 < max(gains) <= 1.05


def test_truncation_has_its_probability() -> None:
    many = draws(AugmentationConfig(truncation=0.3), 400)
    for end in range(2):
        cut = [abs(some.z_range[end]) for some in many if math.isfinite(some.z_range[end])]
        assert len(cut) / len(many) == pytest.approx(0.3, abs=0.07)
        assert 100 <= min(cut) <= max(cut) <= 160
    assert all(low < 0 < high for low, high in (some.z_range for some in many))


def test_elastic_displacement_is_as_large_as_asked_and_smooth() -> None:
    moved = np.stack([coordinates(some) - TARGET.points() for some in draws(AugmentationConfig(elastic=6), 40)])
    assert moved.std() == pytest.approx(6, rel=0.15)
    assert moved.mean() == pytest.approx(0, abs=1)
    # Uncorrelated across the axes; neighbours 6 mm apart move nearly alike, points 150 mm apart do not.
    x, y = moved[..., 0].ravel(), moved[..., 1].ravel()
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.15
    assert np.corrcoef(moved[:, :-1].ravel(), moved[:, 1:].ravel())[0, 1] > 0.97
    assert abs(np.corrcoef(moved[:, :-25].ravel(), moved[:, 25:].ravel())[0, 1]) < 0.25


@pytest.mark.parametrize("kind", [torch.int16, torch.float32])
def test_compiled_sampling_is_pytorchs(kind: torch.dtype) -> None:
    scan = torch.randint(-1000, 1500, (20, 30, 25), generator=torch.Generator().manual_seed(0)).to(kind)
    # Positions in the scan, across its edges, and outside of it.
    lattice = torch.rand(5, 4, 6, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor([30.0, 36, 26]) - 3
    shape = (13, 11, 17)
    assert torch.allclose(_sample(scan, lattice, shape), _sample_torch(scan, lattice, shape), atol=0.1)
