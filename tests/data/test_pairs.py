"""Training pairs: X-rays and volume of the same warped patient, each batch a function of the seed and its number."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
import torch.nn.functional as F

from raylift.config.recipe import AugmentationConfig, DataConfig, XrayAugmentationConfig
from raylift.data.dataset import PreparedDataset
from raylift.data.pairs import OfflinePairs, OnlinePairs, augment_xrays
from raylift.drr.operator import ProjectionOperator
from raylift.errors import BadInput
from raylift.geometry import PRESETS, Geometry, View, VolumeGrid
from raylift.lifting.scaling import XRAY_SCALE

CPU = torch.device("cpu")
VIEWS = (View(0.0), View(90.0))
WILD = AugmentationConfig(
    rotation=12, scaling=0.1, shift=25, elastic=5, intensity=0.1, truncation=0.2,
    lung=90, soft_tissue=25, bone=0.25, opacities=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def dataset(prepared: Path) -> PreparedDataset:
    return PreparedDataset(prepared)


def online(dataset: PreparedDataset, names: list[str] | None = None, seed: int = 0, **data: object) -> OnlinePairs:
    settings = DataConfig(**{"xray_pixels": 32, "projection_spacing": 6.0, **data})
    cases = [dataset.case(name) for name in names or dataset.names("train")]
    return OnlinePairs(dataset, cases, VIEWS, settings, CPU, seed)


def offline(dataset: PreparedDataset, names: list[str] | None = None, seed: int = 0, **data: object) -> OfflinePairs:
    cases = [dataset.case(name) for name in names or dataset.names("train")]
    return OfflinePairs(dataset, cases, VIEWS, DataConfig(**{"xray_pixels": 32, **data}), CPU, seed)


# --- Online pairs ---------------------------------------------------------------------------------------------------


def test_a_batch_depends_on_the_seed_and_its_number_alone(dataset: PreparedDataset) -> None:
    pairs = online(dataset, augmentation=WILD)
    third = pairs.batch(3, 2)
    pairs.batch(4, 1)
    torch.manual_seed(99)
    for again in (pairs.batch(3, 2), online(dataset, augmentation=WILD).batch(3, 2)):
        assert torch.equal(again.truth, third.truth)
        assert torch.equal(again.xrays, third.xrays)
        assert again.views == third.views
    assert third.xrays.shape == (2, 2, 32, 32)
    assert third.truth.shape == (2, 1, 64, 64, 64)
    assert 0 <= third.truth.min() < third.truth.max() <= 1
    for other in (pairs.batch(4, 2), online(dataset, seed=1, augmentation=WILD).batch(3, 2)):
        assert not torch.allclose(other.truth, third.truth, atol=0.05)


def test_without_augmentation_online_pairs_are_the_stored_ones(dataset: PreparedDataset) -> None:
    made = online(dataset, ["phantom-1"], opposite_views=False, projection_spacing=4.0).batch(0, 1)
    stored = offline(dataset, ["phantom-1"]).batch(0, 1)
    assert made.views == stored.views == VIEWS
    for a, b in zip(made.xrays[0], stored.xrays[0], strict=True):
        assert float((a - b).abs().mean() / b.mean()) < 0.03
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.998
    difference = made.truth - stored.truth
    assert float(difference.abs().mean()) < 0.02  # 40 HU; the two smooth differently
    assert abs(float(difference.mean())) < 0.003
    assert np.corrcoef(made.truth.ravel(), stored.truth.ravel())[0, 1] > 0.99


def test_any_views_of_any_unit(marker: PreparedDataset) -> None:
    pairs = online(marker, any_views=1.0, any_geometry=1.0, xray_pixels=64, projection_spacing=4.0)
    counts, units = set(), set()
    for number in range(12):
        batch = pairs.batch(number, 1)
        counts.add(len(batch.views))
        units.add(batch.geometry)
        assert len(set(batch.views)) == len(batch.views) == batch.xrays.shape[1]
        for view, image in zip(batch.views, batch.xrays[0], strict=True):
            row, column = batch.geometry.camera(view, (0, 0, 0)).project(np.array(MARK))
            seen = ball_in_xray(image) * (batch.geometry.detector_mm / 430)
            expected = (np.array([row, column]) - 31.5) * batch.geometry.pitch
            assert seen == pytest.approx(expected, abs=2.5)
    assert len(counts) > 3
    assert counts <= set(range(1, 9))
    assert units == {Geometry.preset(name, 64) for name in PRESETS}


def test_only_some_batches_have_any_views(dataset: PreparedDataset) -> None:
    pairs = online(dataset, any_views=0.5, projection_spacing=20.0, opposite_views=False)
    drawn = [pairs.batch(number, 1).views for number in range(24)]
    assert 6 < sum(views == VIEWS for views in drawn) < 18
    assert {views for views in drawn if len(views) == 1} >= {VIEWS[:1], VIEWS[1:]}  # each of the recipe's own, alone
    assert any(len(views) > 1 and views != VIEWS for views in drawn)


def test_augmented_xrays_belong_to_their_truth(dataset: PreparedDataset) -> None:
    """Within the cube's shadow the X-rays resemble a projection of the pair's own truth, unflipped, and no other's."""
    batch = online(dataset, augmentation=WILD, projection_spacing=4.0).batch(7, 4)
    cube = VolumeGrid.cube((0, 0, 0), 320, 64)
    again = ProjectionOperator(cube, dataset.geometry.with_pixels(32).cameras(batch.views))(0.04 * batch.truth[:, 0])
    inner = (slice(5, -5), slice(5, -5))
    for view in range(2):
        score = np.array([[np.corrcoef(x[view][inner].ravel(), p[view][inner].ravel())[0, 1] for p in again]
                          for x in batch.xrays])  # fmt: skip
        assert (score.argmax(1) == range(4)).all(), score
        assert score.diagonal().min() > 0.9
        for x, p, best in zip(batch.xrays, again, score.diagonal(), strict=True):
            assert np.corrcoef(x[view][inner].flip(1).ravel(), p[view][inner].ravel())[0, 1] < best - 0.02


@pytest.fixture(scope="module")
def marker(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """A dataset of one case: a ball of water, radius 22 mm, at (60, -45, 50) mm from an isocentre far from 0."""
    folder = tmp_path_factory.mktemp("marker")
    isocentre = np.array([-31.0, 212.0, -404.0])
    grid = VolumeGrid.box(np.add(isocentre, (5, -4, 3)).tolist(), (120, 100, 130), 2.5)
    distance = np.linalg.norm(grid.points() - isocentre - MARK, axis=-1)
    hu = np.rint(1000 * np.clip((22 - distance) / 2.5 + 0.5, 0, 1) - 1000).astype(np.int16)
    (folder / "cases" / "ball").mkdir(parents=True)
    np.save(folder / "cases" / "ball" / "context.npy", hu)
    case = {"isocentre_lps_mm": isocentre.tolist(), "context_grid": grid.to_dict(), "sha256": "0" * 64}
    (folder / "cases" / "ball" / "case.json").write_text(json.dumps(case))
    unit = Geometry(700.0, 1000.0, 430.0, 64)
    views = [{"angle": 0.0, "mirrored": False}, {"angle": 90.0, "mirrored": False}]
    info = {"geometry": unit.to_dict(), "views": views, "voxels": 64, "cube_mm": 320.0}
    info["cases"] = {"ball": {"status": "ok", "sha256": "0" * 64}}
    (folder / "dataset.json").write_text(json.dumps(info))
    (folder / "splits.json").write_text('{"train": ["ball"]}')
    return PreparedDataset(folder)


MARK = (60.0, -45.0, 50.0)


def ball_in_truth(truth: torch.Tensor) -> np.ndarray:
    """Centre of mass (x, y, z) in mm from the cube's middle; voxels of 5 mm, -157.5 mm being the first."""
    at = [(truth.sum([a for a in range(3) if a != axis]) * (5.0 * torch.arange(64) - 157.5)).sum() for axis in range(3)]
    return np.array([float(c / truth.sum()) for c in at[::-1]])


def ball_in_xray(image: torch.Tensor) -> np.ndarray:
    """Centre of mass (row, column) in mm from the detector's middle."""
    pitch, n = 430 / len(image), len(image)
    offset = pitch * (torch.arange(n) - (n - 1) / 2)
    return np.array([float((image.sum(1 - a) * offset).sum() / image.sum()) for a in range(2)])


def shadow_by_hand(at: np.ndarray, view: View) -> tuple[float, float]:
    """(row, column) in mm from the detector's middle, for a source 700 mm and a detector 1000 mm away."""
    x, y, z = at
    towards, across = {0: (-y, x), 90: (x, y), 180: (y, x), 270: (-x, y)}[int(view.angle)]
    size = 1000 / (700 - towards)
    return -z * size, across * size


def test_the_marker_is_where_the_patient_has_it(marker: PreparedDataset) -> None:
    batch = online(marker, opposite_views=False, xray_pixels=64, projection_spacing=4.0).batch(0, 1)
    assert ball_in_truth(batch.truth[0, 0]) == pytest.approx(MARK, abs=0.5)
    for view, image in zip(batch.views, batch.xrays[0], strict=True):
        assert ball_in_xray(image) == pytest.approx(shadow_by_hand(np.array(MARK), view), abs=1.5)


def test_the_augmented_marker_casts_its_shadow_from_every_side(marker: PreparedDataset) -> None:
    """Opposite views magnify otherwise but keep left on the right, for a ball at another place in each pair."""
    gentle = AugmentationConfig(rotation=20, scaling=0.1, shift=25)
    pairs = online(marker, augmentation=gentle, xray_pixels=64, projection_spacing=4.0)
    seen, places = set(), []
    for number in range(8):
        batch = pairs.batch(number, 1)
        at = ball_in_truth(batch.truth[0, 0])
        places.append(at)
        for view, image in zip(batch.views, batch.xrays[0], strict=True):
            assert view.mirrored == (view.angle >= 180)
            seen.add(view.angle)
            assert ball_in_xray(image) == pytest.approx(shadow_by_hand(at, view), abs=2)
    assert seen == {0, 90, 180, 270}
    assert np.std(places, axis=0).min() > 3


def test_intensity_changes_both_alike(marker: PreparedDataset) -> None:
    plain = online(marker, opposite_views=False).batch(0, 1)
    pairs = online(marker, opposite_views=False, augmentation=AugmentationConfig(intensity=0.3))
    gains = []
    for number in range(3):
        batch = pairs.batch(number, 1)
        gains.append(float(batch.truth.sum() / plain.truth.sum()))
        assert float(batch.xrays.sum() / plain.xrays.sum()) == pytest.approx(gains[-1], rel=1e-3)
    assert max(gains) - min(gains) > 0.05
    assert all(0.7 <= gain <= 1.3 for gain in gains)


# --- Offline pairs --------------------------------------------------------------------------------------------------


def test_offline_pairs_are_the_files(dataset: PreparedDataset, prepared: Path) -> None:
    batch = offline(dataset, ["phantom-1"]).batch(0, 2)
    folder = prepared / "cases" / "phantom-1"
    stored = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "xrays.mha")))
    halved = stored.reshape(2, 32, 2, 32, 2).mean((2, 4))
    truth = (np.clip(sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "ct.nii.gz"))), -1000, 1000) + 1000) / 2000
    for b in range(2):
        assert batch.xrays[b].numpy() == pytest.approx(halved, abs=1e-5)
        assert batch.truth[b, 0].numpy() == pytest.approx(truth, abs=1e-6)


def test_views_are_chosen_from_the_stored_ones(dataset: PreparedDataset) -> None:
    cases = [dataset.case("phantom-0")]
    turned = OfflinePairs(dataset, cases, VIEWS[::-1], DataConfig(xray_pixels=32), CPU, 0).batch(0, 1)
    assert turned.views == VIEWS[::-1]
    assert torch.equal(turned.xrays[0].flip(0), offline(dataset, ["phantom-0"]).batch(0, 1).xrays[0])
    with pytest.raises(BadInput, match="no X-rays of view 45"):
        OfflinePairs(dataset, cases, [View(45.0)], DataConfig(), CPU, 0)


def test_offline_batches_repeat_and_leave_the_generator_alone(dataset: PreparedDataset) -> None:
    paper = XrayAugmentationConfig(contrast=(0.8, 1.2), rotation=15, rotation_probability=0.5, flip_probability=0.3)
    pairs = offline(dataset, xray_augmentation=paper)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = pairs.batch(2, 3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    again = pairs.batch(2, 3)
    assert torch.equal(first.xrays, again.xrays)
    assert torch.equal(first.truth, again.truth)
    assert not torch.equal(first.xrays, pairs.batch(3, 3).xrays)


def images() -> torch.Tensor:
    return F.interpolate(torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)), (24, 24), mode="bilinear")


def test_pictures_have_their_own_range_and_256_levels(dataset: PreparedDataset) -> None:
    plain, pictures = (offline(dataset, pictures=told).batch(0, 2).xrays for told in (False, True))
    assert torch.equal(pictures.amin((2, 3)), torch.zeros(2, 2))
    assert torch.equal(pictures.amax((2, 3)), torch.full((2, 2), XRAY_SCALE))
    levels = pictures * 255 / XRAY_SCALE
    assert torch.allclose(levels, levels.round(), atol=1e-3)
    image, picture = plain[0, 0].flatten(), pictures[0, 0].flatten()
    assert float(torch.corrcoef(torch.stack([image, picture]))[0, 1]) > 0.9999


def test_no_xray_augmentation_changes_nothing() -> None:
    assert torch.allclose(augment_xrays(images(), XrayAugmentationConfig(), 0), images(), atol=1e-5)


def test_contrast_and_flip() -> None:
    flipped = augment_xrays(images(), XrayAugmentationConfig(flip_probability=1.0), 0)
    assert torch.allclose(flipped, images().flip(3), atol=1e-5)
    doubled = augment_xrays(images(), XrayAugmentationConfig(contrast=(2.0, 2.0)), 0)
    mean = images().mean((2, 3), keepdim=True)
    assert torch.allclose(doubled, 2 * images() - mean, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"contrast": (0.5, 1.5)},
        {"rotation": 20, "rotation_probability": 0.5},
        {"flip_probability": 0.5},
        {"contrast": (0.5, 1.5), "rotation": 20, "rotation_probability": 0.5, "flip_probability": 0.5},
    ],
)
def test_all_views_of_a_patient_share_one_draw(settings: dict[str, Any]) -> None:
    several = images()[:1, :1].expand(8, 2, 24, 24)
    changed = augment_xrays(several, XrayAugmentationConfig(**settings), 0)
    assert torch.allclose(changed[:, 0], changed[:, 1])
    untouched = [torch.allclose(image, several[0, 0], atol=1e-5) for image in changed[:, 0]]
    assert 0 <= sum(untouched) < 8
    assert not all(torch.allclose(image, changed[0, 0]) for image in changed[:, 0])


@pytest.mark.parametrize("make", [online, offline])
def test_no_case_is_in_a_batch_twice(prepared: Path, make: Callable[..., Any]) -> None:
    pairs = make(PreparedDataset(prepared))
    pairs.cases = list(range(10))
    epochs = [[pairs.case_indices(number, 4) for number in (2 * epoch, 2 * epoch + 1)] for epoch in range(50)]
    drawn = [case for epoch in epochs for batch in epoch for case in batch]
    assert all(len(set(first + second)) == 8 for first, second in epochs)
    assert len({tuple(first) for first, _ in epochs}) > 40
    assert all(20 <= drawn.count(case) <= 50 for case in range(10))
    assert sorted(pairs.case_indices(3, 20)) == sorted([*range(10)] * 2)
    assert len(pairs.case_indices(3, 25)) == 25
