"""Clinical measures against bodies of known volume and width, and what is known of them for a spoilt volume."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from raylift.data.phantom import thorax_phantom
from raylift.evaluation import clinical
from raylift.evaluation.clinical import clinical_measures, dice, find_lungs, heart_width, mean_gradient, vif
from raylift.geometry import VolumeGrid
from raylift.images.volume import Volume

SPACING = (5.0, 5.0, 5.0)
RADII = {"right": (45.0, 70.0, 110.0), "left": (35.0, 60.0, 100.0)}  # along x, y, z
LITRES = sum(4 / 3 * math.pi * math.prod(radii) for radii in RADII.values()) / 1e6


def chest(gap: float, *, heart: float = 0.0, shift: float = 0.0, half_width: float = 190.0) -> np.ndarray:
    """Two ellipsoids of lung `gap` mm apart in a soft-tissue cylinder in air, 64³ voxels of 5 mm, no mirror symmetry.

    Args:
        gap: between the ellipsoids, around x = `shift`.
        heart: width along x of an upright elliptical cylinder of soft tissue in both lungs, more in the left one.
        shift: of the whole chest along x in mm.
        half_width: of the elliptical cylinder along x; from 160 mm on the volume cuts it.
    """
    z, y, x = np.meshgrid(*[np.arange(64) * 5.0 - 157.5] * 3, indexing="ij")
    x = x - shift
    hu = np.where((x / half_width) ** 2 + (y / 110) ** 2 < 1, 40.0, -1000.0)
    for side, (rx, ry, rz) in zip((-1, 1), RADII.values(), strict=True):
        hu[((x - side * (gap / 2 + rx)) / rx) ** 2 + (y / ry) ** 2 + ((z - 5 * side) / rz) ** 2 < 1] = -850.0
    if heart:
        hu[((x - 10) / (heart / 2)) ** 2 + ((y + 15) / 45) ** 2 < 1] = 40.0
    return hu


@pytest.fixture(scope="module")
def phantom_cube(phantom: Volume) -> np.ndarray:
    """A chest without symmetry in the cube of a prepared case: (64, 64, 64), HU."""
    return phantom.resample(VolumeGrid.cube(phantom.grid.centre, 320.0, 64)).array


@pytest.mark.parametrize("half_width", [155.0, 190.0], ids=["whole body", "body cut by the side faces"])
def test_lungs_of_known_volume(half_width: float) -> None:
    lungs = find_lungs(chest(80, half_width=half_width), SPACING)
    assert lungs.sum() * 0.125e-3 == pytest.approx(LITRES, rel=0.01)


def test_lungs_of_another_spacing() -> None:
    hu = chest(100).repeat(2, axis=1)  # voxels of 5 mm × 2.5 mm × 5 mm
    assert find_lungs(hu, (5.0, 2.5, 5.0)).sum() * 0.0625e-3 == pytest.approx(LITRES, rel=0.01)


def test_the_same_lungs_cut_by_a_side_face_or_the_upper_face() -> None:
    hu, whole = chest(100), find_lungs(chest(100), SPACING)
    assert whole[:, :, 8].any()
    assert np.array_equal(find_lungs(hu[:, :, 8:], SPACING), whole[:, :, 8:])
    assert np.array_equal(find_lungs(hu[:40], SPACING), whole[:40])


def test_what_is_no_lung() -> None:
    hu = chest(100)
    lungs = find_lungs(hu, SPACING)
    spoilt = hu.copy()
    spoilt[30:37, 28:35, 30:34] = -900  # 7 · 7 · 4 voxels of 0.125 mL: 24.5 mL, a trachea
    spoilt[:, 58, :] = 50  # a table below, with air between it and the body
    assert np.array_equal(find_lungs(spoilt, SPACING), lungs)
    spoilt[30:40, 28:36, 30:36] = -900  # 60 mL
    assert find_lungs(spoilt, SPACING).sum() - lungs.sum() == 480
    assert not find_lungs(np.full((16, 16, 16), -1000.0), SPACING).any()
    assert not find_lungs(np.full((16, 16, 16), 0.0), SPACING).any()


@pytest.mark.parametrize("thick", [1, 3, 5], ids=["5 mm", "15 mm", "25 mm"])
def test_air_between_a_back_and_a_table_is_no_lung(thick: int) -> None:
    hu = chest(100, half_width=155)
    lungs = find_lungs(hu, SPACING)
    hu[:, 53 : 53 + thick, :] = 50  # it carries the back, whose rows end at 53, and reaches both side faces
    assert np.array_equal(find_lungs(hu, SPACING), lungs)


def test_a_lung_open_to_the_air_is_lost_only_where_it_is_open() -> None:
    hu = chest(100)
    lungs = find_lungs(hu, SPACING)
    narrow, wide = hu.copy(), hu.copy()
    narrow[30:33, :32, 14:17] = -1000  # a channel of 15 mm from the front into the right lung
    wide[28:38, :32, 10:20] = -1000  # of 50 mm
    assert dice(find_lungs(narrow, SPACING), lungs) > 0.97
    found = find_lungs(wide, SPACING)
    assert not found[30:36, :, :30].any()
    assert np.array_equal(found[:26], lungs[:26])
    assert np.array_equal(found[:, :, 32:], lungs[:, :, 32:])


@pytest.mark.parametrize("heart", [90.0, 120.0])
@pytest.mark.parametrize("shift", [0.0, -20.0])
def test_heart_width_is_that_of_the_heart(heart: float, shift: float) -> None:
    # At the ellipsoids' tips in front and behind, the gap between them is up to 100 mm.
    lungs = find_lungs(chest(20, heart=heart, shift=shift), SPACING)
    assert heart_width(lungs, lungs, SPACING) == pytest.approx(heart, abs=5)


def test_heart_width_by_hand() -> None:
    lungs = np.zeros((8, 4, 20), bool)
    lungs[:, 1:3, 2:6] = True
    lungs[:, 1:3, 12:17] = True
    lungs[2:4, 1:3, 4:6] = False  # the second quarter of the volume is that of slices 1 to 3, with gaps of 6, 8 and 8
    assert heart_width(lungs, lungs, (3.0, 5.0, 5.0)) == 24
    assert heart_width(lungs & (np.arange(20) < 8), lungs, SPACING) is None
    assert heart_width(lungs & False, lungs, SPACING) is None
    assert heart_width(lungs, lungs & False, SPACING) is None


def test_dice_of_two_boxes_by_hand() -> None:
    a, b = np.zeros((2, 6, 6, 6), bool)
    a[:4, :4, :4] = True  # 64
    b[2:, :4, :4] = True  # 64, 32 of them in both
    assert dice(a, b) == 0.5
    assert dice(a, a) == 1
    assert dice(a, ~a) == 0


def test_identical_volumes_are_perfect(phantom_cube: np.ndarray) -> None:
    measures = clinical_measures(phantom_cube, phantom_cube, SPACING)
    ideal = dict.fromkeys(measures, 0.0) | dict.fromkeys(("dice_lungs", "dice_bones", "vif", "sharpness"), 1.0)
    assert measures == pytest.approx(ideal, abs=1e-5)
    assert len(measures) == 11


def test_values_are_clipped_to_the_window(phantom_cube: np.ndarray) -> None:
    beyond = np.where(phantom_cube <= -1000, -3000, phantom_cube)
    beyond[phantom_cube >= 800] = 1000
    higher = np.where(beyond == 1000, 4000, beyond)
    assert clinical_measures(higher, beyond, SPACING) == pytest.approx(
        clinical_measures(beyond, beyond, SPACING), abs=1e-6
    )


def test_errors_by_tissue_and_in_masks_by_hand() -> None:
    truth = np.full((8, 8, 8), -1000.0)
    truth[1], truth[2], truth[3], truth[4] = -800, -100, 40, 300
    prediction = truth.copy()
    prediction[1] += 10
    prediction[2, :4] -= 20  # half of the fat
    prediction[3] += 200  # soft tissue as bone
    prediction[4, 0] -= 400  # an eighth of the bone, to soft tissue
    measures = clinical_measures(prediction, truth, SPACING)
    assert [measures[f"mae_{tissue}_hu"] for tissue in clinical.TISSUES] == pytest.approx([10, 10, 200, 50])
    assert measures["dice_bones"] == pytest.approx(2 * 56 / (64 + 120))
    assert measures["bone_volume_error"] == pytest.approx(120 / 64 - 1)
    # Neither lungs nor enough voxels for four scales.
    assert not {"dice_lungs", "lung_volume_error", "heart_width_error_mm", "vif"} & set(measures)


@pytest.mark.parametrize(("wider", "shifted"), [(20.0, 0.0), (-20.0, 0.0), (0.0, 10.0)])
def test_a_heart_of_another_width_and_a_shifted_chest(wider: float, shifted: float) -> None:
    prediction, truth = chest(20, heart=100 + wider, shift=shifted), chest(20, heart=100)
    measures = clinical_measures(prediction, truth, SPACING)
    assert measures["heart_width_error_mm"] == pytest.approx(wider, abs=5)
    painted = (prediction == -850).sum() / (truth == -850).sum() - 1
    assert measures["lung_volume_error"] == pytest.approx(painted, abs=0.01)
    assert measures["dice_lungs"] < 0.97


def test_a_prediction_without_lungs_has_no_heart_width(phantom_cube: np.ndarray) -> None:
    measures = clinical_measures(np.full_like(phantom_cube, 0), phantom_cube, SPACING)
    assert "heart_width_error_mm" not in measures
    assert (measures["dice_lungs"], measures["lung_volume_error"]) == (0, -1)
    assert (measures["dice_bones"], measures["bone_volume_error"]) == (0, -1)
    assert measures["sharpness"] == 0
    assert measures["vif"] == pytest.approx(0, abs=1e-6)


def test_blur_lowers_fidelity_and_sharpness(phantom_cube: np.ndarray) -> None:
    found = [clinical_measures(gaussian_filter(phantom_cube, s), phantom_cube, SPACING) for s in (0.7, 1.5)]
    for name in ("vif", "sharpness", "dice_bones"):
        values = [1.0, *(measures[name] for measures in found), 0.0]
        assert values == sorted(values, reverse=True), name


def test_fidelity_falls_with_noise_and_not_with_contrast(phantom_cube: np.ndarray) -> None:
    truth = np.clip(phantom_cube, -1000, 1000).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 100, truth.shape).astype(np.float32)
    assert vif(truth + noise, truth) < 0.8
    assert vif(1.2 * truth, truth) > 1


def test_fidelity_of_a_slice_by_the_formula() -> None:
    # One slice of the truth holds tissue, as noise of variance s² around 0 HU. A prediction g times as strong, on
    # the one finest scale of the definition, would keep log(1 + g²s²/n) / log(1 + s²/n) of it; coarser scales have
    # less variance, and so keep less when g < 1.
    texture = np.random.default_rng(1).normal(0, 100, (64, 64, 64)).astype(np.float32)
    variance, noise, g = (100 * 255 / 2000) ** 2, 2.0, 0.5
    finest = math.log(1 + g**2 * variance / noise) / math.log(1 + variance / noise)
    assert 0.6 * finest < vif(g * texture, texture) < finest


def test_the_gradient_of_a_ramp_is_its_slope() -> None:
    z, y, x = np.meshgrid(*[np.arange(12.0)] * 3, indexing="ij")
    assert mean_gradient(4 * z - 6 * y + 24 * x, (2.0, 1.5, 1.0)) == pytest.approx(math.hypot(4, 4, 12))


def test_a_fine_phantom_has_plausible_lungs_and_heart() -> None:
    volume = thorax_phantom(3, 4.0)
    lungs = find_lungs(volume.array, volume.grid.spacing)
    assert 2 < lungs.sum() * math.prod(volume.grid.spacing) / 1e6 < 8
    width = heart_width(lungs, lungs, volume.grid.spacing)
    assert width is not None
    assert 90 < width < 170


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        clinical_measures(np.zeros((8, 8, 8)), np.zeros((8, 8, 9)), SPACING)
