"""X-rays to a volume: every way of giving them is the same, and those that do not fit are refused."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from helpers import Known, describe_tiny, known_weights, random_weights
from raylift.data.phantom import thorax_phantom
from raylift.data.thorax import find_thorax
from raylift.drr.projector import project_volume
from raylift.errors import BadInput, WrongUsage
from raylift.geometry import Geometry, View, VolumeGrid
from raylift.images.hounsfield import hu_to_normalised, normalised_to_hu
from raylift.images.volume import Volume
from raylift.images.xray_set import XraySet
from raylift.model.weights_info import Calibration
from raylift.radiographs.out_of_distribution import OODDetector
from raylift.radiographs.sets import write_xrays
from raylift.reconstruction import alignment
from raylift.reconstruction.reconstructor import Reconstruction, Reconstructor
from raylift.reconstruction.reprojection import reproject
from repository import SHARED

UNIT = Geometry.preset("chest-stand", 64)
PARALLEL = Geometry.preset("parallel", 64)
VIEWS = (View(0.0), View(90.0))
ISOCENTRE = (12.0, -30.0, 250.0)


@pytest.fixture(scope="module")
def reconstructor(tmp_path_factory: pytest.TempPathFactory) -> Reconstructor:
    """A real network that was never trained."""
    return Reconstructor.from_pretrained(random_weights(tmp_path_factory.mktemp("weights")), "cpu")


def known(constant: float, *shares: float, geometry: Geometry = UNIT, opposite: bool = True) -> Reconstructor:
    info = describe_tiny(geometry=geometry, opposite_views=opposite)
    return Reconstructor(known_weights(Known(constant, *shares), info), "cpu")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Line integrals (2, 64, 64) without any symmetry."""
    return np.random.default_rng(0).uniform(0, 6, (2, 64, 64)).astype(np.float32)


def xray_set(images: np.ndarray, views: Sequence[View] = VIEWS, geometry: Geometry = UNIT) -> XraySet:
    return XraySet(images, tuple(views), geometry, ISOCENTRE)


def same(a: Reconstruction, b: Reconstruction) -> None:
    np.testing.assert_allclose(a.volume.array, b.volume.array, atol=0.05)  # HU
    assert np.ptp(a.volume.array) > 1


def test_folder_files_array_and_set_are_the_same(
    reconstructor: Reconstructor, images: np.ndarray, tmp_path: Path
) -> None:
    given = xray_set(images)
    expected = reconstructor(given)
    write_xrays(given, tmp_path / "xrays", "torch")
    same(reconstructor(tmp_path / "xrays"), expected)
    same(reconstructor(str(tmp_path / "xrays" / "xrays.json")), expected)
    same(reconstructor(images), expected)
    files = [tmp_path / "xrays" / "ap.mha", tmp_path / "xrays" / "lateral-right.mha"]
    same(reconstructor(files, views=["ap", 90]), expected)
    with pytest.raises(BadInput, match=r"ap\.mha: declares no view; give it with --views"):
        reconstructor(files)
    write_xrays(given, tmp_path / "dicom", "torch", dicom=True)
    told = reconstructor([tmp_path / "dicom" / "lateral-right.dcm", tmp_path / "dicom" / "ap.dcm"])
    np.testing.assert_allclose(told.volume.array, expected.volume.array, atol=0.5)


def test_output_is_that_of_the_network_in_hounsfield_units(images: np.ndarray) -> None:
    # 0.1 + ch0 · 0.05 - ch1 · 0.02 of the network's window, 1 being 2000 HU above -1000, clipped to it.
    chosen = known(0.1, 0.05, -0.02)
    result = chosen(images)
    lifted = chosen.lifted_network.lift(torch.from_numpy(images)[None])[0].numpy()
    expected = 2000 * np.clip(0.1 + 0.05 * lifted[0] - 0.02 * lifted[1], 0, 1) - 1000
    np.testing.assert_allclose(result.volume.array, expected, atol=0.05)
    assert known(2.0)(images).volume.array.max() == 1000
    assert known(-2.0)(images).volume.array.min() == -1000


def test_the_volume_is_the_320_mm_cube_around_the_isocentre(images: np.ndarray) -> None:
    volume = known(0.5)(xray_set(images)).volume
    assert volume.array.shape == (64, 64, 64)
    assert volume.grid.spacing == (5, 5, 5)
    # The first voxel's centre: 160 mm minus half a voxel before the isocentre.
    assert volume.grid.origin == pytest.approx((12 - 157.5, -30 - 157.5, 250 - 157.5))
    assert volume.grid.direction == (1, 0, 0, 0, 1, 0, 0, 0, 1)


def test_without_isocentre_the_cube_is_around_the_origin_and_says_so(images: np.ndarray) -> None:
    result = known(0.5)(images)
    assert result.volume.grid.origin == (-157.5, -157.5, -157.5)
    assert any("isocentre" in note for note in result.notes)
    assert not known(0.5)(xray_set(images)).notes


def test_order_of_views_does_not_matter(images: np.ndarray) -> None:
    chosen = known(0.1, 0.05, -0.02)
    straight = chosen(xray_set(images))
    turned = chosen(xray_set(images[::-1].copy(), VIEWS[::-1]))
    same(straight, turned)
    assert turned.xrays.views == VIEWS
    np.testing.assert_array_equal(turned.xrays.images, images)
    # With the views named wrongly the volume is another.
    assert np.abs(chosen(xray_set(images[::-1].copy())).volume.array - straight.volume.array).max() > 10


def test_views_of_both_sides_are_not_confused() -> None:
    """Each of four views is a wanted one, and the opposite of another."""
    info = describe_tiny((0.0, 90.0, 180.0, 270.0), UNIT)
    chosen = Reconstructor(known_weights(Known(0.1, 0.01, 0.02, 0.03, 0.04), info), "cpu")
    four = np.random.default_rng(1).uniform(0, 6, (4, 64, 64)).astype(np.float32)
    views = [View(angle) for angle in (0.0, 90.0, 180.0, 270.0)]
    order = [2, 3, 0, 1]
    same(chosen(xray_set(four, views)), chosen(xray_set(four[order], [views[k] for k in order])))


def test_cameras_of_their_own_are_those_of_the_geometry_where_they_are_equal(images: np.ndarray) -> None:
    info = describe_tiny((0.0, 90.0), UNIT)
    info["recipe"]["data"] |= {"pairs": "online", "any_geometry": 0.1}
    chosen = Reconstructor(known_weights(Known(0.1, 0.05, -0.02), info), "cpu")
    given = xray_set(images)
    own = replace(given, own_cameras=given.cameras)
    same(chosen(own), chosen(given))
    shifted = replace(own, own_cameras=tuple(c.moved((0, 0, 0), (20, 10, 5), (0, 0, 0)) for c in own.own_cameras))
    assert np.abs(chosen(shifted).volume.array - chosen(given).volume.array).max() > 10
    with pytest.raises(BadInput, match="use other weights"):
        known(0.1, 0.05, -0.02)(own)


def test_gradients_after_a_reconstruction(images: np.ndarray) -> None:
    chosen = known(0.1, 0.05, -0.02)
    chosen(xray_set(images))
    given = torch.from_numpy(images)[None].requires_grad_()
    (gradient,) = torch.autograd.grad(chosen.lifted_network(given).sum(), given)
    assert gradient.abs().max() > 0


def test_finer_xrays_are_averaged(images: np.ndarray) -> None:
    chosen = known(0.1, 0.05, -0.02)
    same(chosen(images.repeat(2, 1).repeat(2, 2)), chosen(images))


def test_finer_xrays_are_accounted_for_on_the_weights_detector() -> None:
    fine = np.random.default_rng(0).uniform(0, 6, (2, 192, 192)).astype(np.float32)
    mean = fine.reshape(2, 64, 3, 64, 3).mean((2, 4))
    chosen = known(0.1, 0.05, -0.02)
    given = xray_set(fine, geometry=UNIT.with_pixels(192))
    result = chosen(given)
    assert result.xrays.geometry == UNIT
    assert (result.xrays.views, result.xrays.isocentre) == (VIEWS, ISOCENTRE)
    np.testing.assert_allclose(result.xrays.images, mean, atol=1e-5)
    assert result.reprojected.shape == (2, 64, 64)
    # The volume is that of the full resolution, which the map averages itself.
    with torch.inference_mode():
        unit = (
            chosen.lifted_network(torch.from_numpy(fine)[None], chosen.geometry.cameras(VIEWS))[0, 0]
            .clamp(0, 1)
            .numpy()
        )
    np.testing.assert_allclose(hu_to_normalised(result.volume.array), unit, atol=1e-6)
    coarse = fine[:, :40, :40]
    assert chosen(xray_set(coarse, geometry=UNIT.with_pixels(40))).reprojected.shape == (2, 40, 40)


@pytest.mark.parametrize(
    ("views", "flipped"),
    [
        ((View(180.0, True), View(270.0, True)), False),  # oriented to read alike
        ((View(180.0), View(270.0)), True),
    ],
)
def test_opposite_views_show_the_same_under_a_parallel_beam(
    images: np.ndarray, views: tuple[View, ...], flipped: bool
) -> None:
    chosen = known(0.1, 0.05, -0.02, geometry=PARALLEL)
    seen = images[..., ::-1].copy() if flipped else images
    same(chosen(xray_set(seen, views, PARALLEL)), chosen(xray_set(images, VIEWS, PARALLEL)))


def test_opposite_views_are_refused_where_the_weights_did_not_see_them(images: np.ndarray) -> None:
    given = xray_set(images, (View(180.0, True), View(90.0)))
    known(0.5)(given)
    with pytest.raises(BadInput, match=r"views pa, lateral-right: the weights are for ap \(0°\), lateral-right"):
        known(0.5, opposite=False)(given)
    stored = describe_tiny()
    stored["recipe"]["data"]["pairs"] = "offline"  # which are never drawn from the other side
    with pytest.raises(BadInput, match="the weights are for ap"):
        Reconstructor(known_weights(Known(0.5), stored), "cpu")(given)


@pytest.mark.parametrize("angles", [(1.5, 91.0), (-1.0, 89.0)])
def test_a_slightly_turned_patient(images: np.ndarray, angles: tuple[float, float]) -> None:
    result = known(0.5)(images, views=list(angles))
    assert [view.angle for view in result.xrays.views] == [a % 360 for a in angles]


@pytest.mark.parametrize("views", [(0, 45), (0, 0), (90, 90), (0, 93), (0, 180)], ids=lambda v: "-".join(map(str, v)))
def test_wrong_views(images: np.ndarray, views: tuple[float, float]) -> None:
    with pytest.raises(BadInput, match="the weights are for"):
        known(0.5)(images, views=views)


def test_a_set_says_its_views_itself(images: np.ndarray, tmp_path: Path) -> None:
    given = xray_set(images)
    write_xrays(given, tmp_path, "torch")
    for place in (given, tmp_path, str(tmp_path / "xrays.json")):
        with pytest.raises(WrongUsage, match="already contains its views"):
            known(0.5)(place, views=[0, 90])


def test_unknown_device() -> None:
    with pytest.raises(WrongUsage, match="'foo'"):
        Reconstructor(known_weights(Known(0.5)), "foo")


def test_unknown_view(images: np.ndarray) -> None:
    with pytest.raises(BadInput, match="'front' is no view"):
        known(0.5)(images, views=["front", 90])


@pytest.mark.parametrize("count", [1, 3])
def test_wrong_number(images: np.ndarray, count: int) -> None:
    given = np.concatenate([images, images])[:count]
    with pytest.raises(BadInput, match=f"{count} X-rays"):
        known(0.5)(given)
    with pytest.raises(BadInput, match="the weights are for"):
        known(0.5)(XraySet(given, (View(0.0), View(90.0), View(45.0))[:count], UNIT))


@pytest.mark.parametrize(
    "wrong",
    [
        replace(UNIT, sad=1000.0),
        replace(UNIT, sdd=2000.0),
        replace(UNIT, detector_mm=400.0),
        Geometry.preset("x2ct", 64),
        replace(UNIT, parallel=True),
    ],
    ids=["sad", "sdd", "detector", "x2ct", "parallel"],
)
def test_wrong_unit(images: np.ndarray, wrong: Geometry) -> None:
    with pytest.raises(BadInput, match="SAD 1600 and SDD 1800 mm, detector 430 mm"):
        known(0.5)(xray_set(images, geometry=wrong))


def test_a_unit_in_centimetres(images: np.ndarray) -> None:
    info = describe_tiny()
    info["recipe"]["data"] |= {"any_geometry": 0.1}
    chosen = Reconstructor(known_weights(Known(0.5), info), "cpu")
    assert chosen(xray_set(images, geometry=Geometry.preset("x2ct", 64))).volume.array.mean() == pytest.approx(0)
    with pytest.raises(BadInput, match="the source lies inside the volume; give distances in mm"):
        chosen(xray_set(images, geometry=Geometry(160.0, 180.0, 43.0, 64)))


def test_no_files() -> None:
    with pytest.raises(BadInput, match="X-rays: none; give at least one"):
        known(0.5)([], views=[])


def test_arrays_that_are_no_xrays(images: np.ndarray) -> None:
    holed = images.copy()
    holed[0, 3, 3] = np.nan
    for wrong in (images[0], images[:, :, :60], holed, images[:, :0, :0]):
        with pytest.raises(BadInput, match="X-rays"):
            known(0.5)(wrong)


@pytest.mark.parametrize("count", [0, 2])
def test_sets_that_are_no_xrays(images: np.ndarray, count: int) -> None:
    broken = images[:count].copy()
    broken[:, 20, 30] = np.nan
    with pytest.raises(BadInput, match="finite"):
        known(0.0, 0.1, 0.1)(xray_set(broken, VIEWS[:count]))


def test_only_exact_lifts_take_displaced_views(images: np.ndarray) -> None:
    info = describe_tiny()
    info["recipe"]["lift"] = "coarse"
    chosen = Reconstructor(known_weights(Known(0.1, 0.1, 0.1), info), "cpu")
    with pytest.raises(WrongUsage, match="'coarse'"):
        chosen(xray_set(images), align=True)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        known(0.5)([tmp_path / "a.mha", tmp_path / "b.mha"])


def test_nothing_explains_nothing(images: np.ndarray) -> None:
    # Air has no attenuation: all of the X-rays is error.
    result = known(0.0)(images)
    assert result.volume.array.max() == -1000
    assert np.abs(result.reprojected).max() == 0
    assert result.reprojection_error == pytest.approx(1)


def test_reprojection_of_a_cube_of_water() -> None:
    # 320 mm of water, 0.02 mm⁻¹, under parallel rays: 6.4 where they cross the cube, 0 outside of it.
    columns = (np.arange(64) - 31.5) * 400 / 64
    inside = np.abs(columns) < 160
    truth = np.where(inside[:, None] & inside, 6.4, 0.0).astype(np.float32)
    result = known(0.5, geometry=PARALLEL)(np.stack([truth, truth]))
    np.testing.assert_allclose(result.reprojected[:, 10:54, 10:54], 6.4, rtol=1e-3)
    assert np.abs(result.reprojected[:, 0]).max() == 0
    # Only pixels at the cube's rim are not certain: it covers (51.2 pixels)², seen as 52² or 50².
    assert result.reprojection_error < 0.05
    twice = known(0.5, geometry=PARALLEL)(2 * np.stack([truth, truth]))
    assert twice.reprojection_error == pytest.approx(0.5, abs=0.03)


def test_reprojection_error_is_a_share_of_the_xrays(images: np.ndarray) -> None:
    result = known(0.1, 0.05, -0.02)(xray_set(images))
    expected = np.abs(result.reprojected - images).sum() / images.sum()
    assert result.reprojection_error == pytest.approx(expected, rel=1e-4)


def test_reproject_follows_the_isocentre() -> None:
    grid = VolumeGrid.cube(ISOCENTRE, 320.0, 32)
    array = np.random.default_rng(1).uniform(-1000, 500, grid.shape).astype(np.float32)
    volume = Volume(array, grid)
    given = xray_set(np.zeros((2, 64, 64), np.float32))
    np.testing.assert_allclose(
        reproject(volume, given), project_volume(volume, UNIT, VIEWS, ISOCENTRE), rtol=1e-5, atol=1e-5
    )
    elsewhere = replace(given, isocentre=(ISOCENTRE[0] + 40, *ISOCENTRE[1:]))
    # The source moves 40 mm to the left: at the isocentre the shadow moves 40 · 1800 / 1600 mm, 6.7 pixels, right.
    centre = [(image.sum(0) @ np.arange(64)) / image.sum() for image in reproject(volume, given)]
    moved = [(image.sum(0) @ np.arange(64)) / image.sum() for image in reproject(volume, elsewhere)]
    assert centre[0] - moved[0] == pytest.approx(40 * 1800 / 1600 / (430 / 64), rel=0.25)


def test_radiographs_as_float_images_and_as_pictures(reconstructor: Reconstructor, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = []
    for name in ("pa", "lateral-left"):
        levels = rng.integers(0, 256, (80, 80)).astype(np.uint8)
        files.append(tmp_path / f"{name}.png")
        sitk.WriteImage(sitk.GetImageFromArray(levels), str(files[-1]))
    result = reconstructor(files, views=["pa", "lateral-left"])
    assert result.volume.array.shape == (64, 64, 64)
    assert [note.split(":")[0] for note in result.notes[:2]] == ["pa.png", "lateral-left.png"]
    assert hu_to_normalised(result.volume.array).std() > 0
    with pytest.raises(BadInput, match="2 X-rays: 1 views given"):
        reconstructor(files, views=["pa"])


@pytest.mark.parametrize("views", [(0, 90), (180, 270), ("pa", "lateral-left"), (181, 269)], ids=str)
def test_a_picture_is_hung_for_reading_whatever_its_angle(tmp_path: Path, views: tuple[str | float, ...]) -> None:
    # Brighter towards the right: to the patient's left in the frontal image, to the back in the lateral one.
    Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))).save(tmp_path / "ramp.png")
    files = [tmp_path / "ramp.png"] * 2
    frontal, lateral = known(0.0, 0.3, 0.0)(files, views).volume.array, known(0.0, 0.0, 0.3)(files, views).volume.array
    assert (np.diff(frontal[32, 32, 4:-4]) > 0).all()
    assert (np.diff(lateral[32, 4:-4, 32]) > 0).all()


def test_strange_xrays_are_flagged(images: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    patients = np.concatenate([images + rng.normal(0, 0.1, images.shape).astype(np.float32) for _ in range(8)])
    ood_detector = OODDetector.fit(patients, VIEWS * 8, [k // 2 for k in range(16)])
    chosen = Reconstructor(replace(known_weights(Known(0.1)), ood_detector=ood_detector), "cpu")
    alike, other = chosen(xray_set(images)), chosen(xray_set(images[:, ::-1].copy()))
    assert alike.ood_score is not None
    assert other.ood_score is not None
    assert alike.ood_score < 1 < other.ood_score
    assert not any("do not trust" in note for note in alike.notes)
    assert any("do not trust" in note for note in other.notes)
    assert f"{other.ood_score:.1f} times as far from the training" in other.trust
    assert other.trust.startswith("do not trust the volume")


def test_a_volume_that_does_not_explain_its_xrays_is_flagged(images: np.ndarray) -> None:
    def reconstruct(usual_error: float | None) -> Reconstruction:
        weights = known_weights(Known(0.1))
        info = weights.info.model_copy(update={"uncertainty": Calibration(usual_error=usual_error)})
        return Reconstructor(replace(weights, info=info), "cpu")(xray_set(images))

    error = reconstruct(None).error_inside
    assert error > 0
    assert not reconstruct(None).warnings
    assert not reconstruct(error / 1.4).warnings
    (warning,) = reconstruct(error / 1.6).warnings
    assert warning.startswith("it does not explain its X-rays")
    assert reconstruct(error / 1.6).notes[0] == f"do not trust the volume: {warning}"


def test_the_error_counts_where_rays_cross_the_whole_cube(images: np.ndarray) -> None:
    chosen = Reconstructor(known_weights(Known(0.1)), "cpu")
    inside, outside = images.copy(), images.copy()
    inside[:, 30:34, 30:34] += 5
    outside[:, :2] += 5  # rays that pass above the cube
    assert chosen(xray_set(inside)).error_inside > chosen(xray_set(images)).error_inside
    assert chosen(xray_set(outside)).error_inside == pytest.approx(chosen(xray_set(images)).error_inside)


def test_refining_and_aligning_are_what_they_say(images: np.ndarray) -> None:
    """The network at the views given, views found from its volume, the network at these, and at last refinement."""
    chosen = known(0.1, 0.05, -0.02)
    smooth = gaussian_filter(images, (0, 4, 4))
    plain = chosen(xray_set(smooth))
    assert plain.refinement is None
    assert plain.xrays.views == VIEWS

    expected = plain
    for motions in alignment.ROUNDS:
        views = alignment.align(expected.volume, expected.xrays, motions)
        with torch.inference_mode():
            unit = (
                chosen.lifted_network(torch.from_numpy(smooth)[None], chosen.geometry.cameras(views))[0, 0]
                .clamp(0, 1)
                .numpy()
            )
        grid = plain.volume.grid
        expected = replace(plain, volume=Volume(normalised_to_hu(unit), grid), xrays=replace(plain.xrays, views=views))
    aligned = chosen(xray_set(smooth), align=True)
    same(aligned, expected)
    assert aligned.xrays.views == views != VIEWS
    np.testing.assert_allclose(aligned.reprojected, reproject(aligned.volume, aligned.xrays), atol=1e-5)

    seen: list[int] = []
    both = chosen(xray_set(smooth), align=True, refine=True, progress=lambda note, done, total: seen.append(done))
    assert both.refinement is not None
    assert seen == list(range(1, both.refinement.iterations + 1))
    np.testing.assert_array_equal(both.volume.array, both.refinement.volume.array)
    assert both.refinement.error_after < both.refinement.error_before
    assert both.reprojection_error < aligned.reprojection_error
    late = chosen(xray_set(smooth), refine=True, seconds=0)
    assert late.refinement is not None
    assert late.refinement.iterations == 0
    same(late, plain)


@pytest.mark.parametrize("name", ["phantom", "00000001_000.png", "00027426_000.png"])
def test_one_frontal_picture_with_the_shipped_weights(tmp_path: Path, name: str) -> None:
    """The volume's projection looks like the picture, and the heart leaves the patient's left lung less room."""
    path = SHARED / "radiographs" / name
    if name == "phantom":
        phantom = thorax_phantom(0)
        image = project_volume(phantom, UNIT.with_pixels(128), [View.parse("pa")], find_thorax(phantom).centre)[0]
        path = tmp_path / "pa.png"
        Image.fromarray((image / image.max() * 255).astype(np.uint8)).save(path)
    elif not path.exists():
        pytest.skip("no radiographs here")
    made = Reconstructor.from_pretrained(device="cpu")([path], ["pa"])
    given, again = (image[0, 32:-32, 32:-32] for image in (made.xrays.images, made.reprojected))
    alike = np.corrcoef(given.ravel(), again.ravel())[0, 1]
    assert alike > 0.97
    assert np.corrcoef(given[:, ::-1].ravel(), again.ravel())[0, 1] < alike - 0.03
    air_like = made.volume.array[8:56, 12:52, 8:56] < -500  # the lungs, since this is within the chest wall
    right, left = air_like[..., :24].sum(), air_like[..., 24:].sum()
    assert left < 0.9 * right
