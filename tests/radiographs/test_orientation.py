"""Pictures are understood by their looks: kind, turn and polarity; and where they are not, it is said."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raylift.data.phantom import thorax_phantom
from raylift.data.thorax import find_thorax
from raylift.drr.registry import load_projector
from raylift.errors import BadInput
from raylift.geometry import Geometry, View
from raylift.model.weights import load_weights
from raylift.radiographs import Grey, Orientation
from raylift.radiographs.intake import read_radiographs
from raylift.radiographs.orientation import guess
from raylift.radiographs.out_of_distribution import OODDetector

UNIT = Geometry.preset("chest-stand", 64)
KINDS = ("pa", "lateral-left")


@pytest.fixture(scope="module")
def ood_detector() -> OODDetector:
    found = load_weights().ood_detector
    assert found is not None
    return found


@pytest.fixture(scope="module")
def pictures() -> dict[str, np.ndarray]:
    """Grey levels (rows, columns) of a phantom's radiographs, oriented for reading, bone bright."""
    phantom = thorax_phantom(1)
    views = [View.parse(kind).oriented for kind in KINDS]
    images = load_projector("torch")(phantom, UNIT, views, find_thorax(phantom).centre)
    return {
        kind: np.rint(255 * (image / image.max()) ** 0.8).astype(np.float32)
        for kind, image in zip(KINDS, images, strict=True)
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("inverted", [False, True])
def test_kind_turn_and_polarity_are_found(
    ood_detector: OODDetector, pictures: dict[str, np.ndarray], kind: str, turns: int, inverted: bool
) -> None:
    spoilt = np.rot90(pictures[kind], -turns)
    found = guess(Grey(Path("a.png"), spoilt.max() - spoilt if inverted else spoilt), ood_detector)
    assert found.view == View.parse(kind)
    assert found.orientation == Orientation(turns, False, inverted)


def test_a_lateral_from_the_other_side_is_mirrored(ood_detector: OODDetector, pictures: dict[str, np.ndarray]) -> None:
    found = guess(Grey(Path("a.png"), pictures["lateral-left"][:, ::-1]), ood_detector)
    assert found.orientation == Orientation(mirrored=True)


def test_where_the_file_knows_its_polarity_it_is_not_guessed(
    ood_detector: OODDetector, pictures: dict[str, np.ndarray]
) -> None:
    dark = pictures["pa"].max() - pictures["pa"]
    assert not guess(Grey(Path("a.dcm"), dark, polarity_known=True), ood_detector).orientation.inverted


def test_orientation_is_undone_in_order() -> None:
    levels = np.arange(12, dtype=np.float32).reshape(3, 4)
    found = Grey(Path("a.png"), levels).oriented(Orientation(1, True, True))
    np.testing.assert_array_equal(found.levels, 11 - np.rot90(levels)[:, ::-1])
    assert found.facts == ("turned to the left, mirrored, inverted",)


def saved(path: Path, levels: np.ndarray) -> Path:
    Image.fromarray(levels.astype(np.uint8)).save(path)
    return path


def test_pictures_without_views(tmp_path: Path, ood_detector: OODDetector, pictures: dict[str, np.ndarray]) -> None:
    lateral = saved(tmp_path / "b.png", pictures["lateral-left"])
    upside_down = saved(tmp_path / "a.png", pictures["pa"][::-1, ::-1])
    found = read_radiographs([lateral, upside_down], None, UNIT, ood_detector=ood_detector)
    expected = read_radiographs(
        [lateral, saved(tmp_path / "c.png", pictures["pa"])], [View.parse("lateral-left"), View.parse("pa")], UNIT
    )
    assert found.views == expected.views
    np.testing.assert_allclose(found.images, expected.images, atol=1e-5)
    assert "view lateral-left, recognised from the image" in found.notes[0]
    assert "turned upside down" in found.notes[1]


def test_dark_bones_are_turned_bright(
    tmp_path: Path, ood_detector: OODDetector, pictures: dict[str, np.ndarray]
) -> None:
    bright = saved(tmp_path / "a.png", pictures["pa"])
    dark = saved(tmp_path / "b.png", 255 - pictures["pa"])
    found = read_radiographs([bright, dark], [View.parse("pa")] * 2, UNIT, ood_detector=ood_detector)
    np.testing.assert_allclose(found.images[1], found.images[0], atol=0.05)
    assert "inverted" in found.notes[1]
    assert "inverted" not in found.notes[0]


def test_a_turned_picture_of_a_given_view_is_left_but_named(
    tmp_path: Path, ood_detector: OODDetector, pictures: dict[str, np.ndarray]
) -> None:
    file = saved(tmp_path / "a.png", pictures["pa"][::-1, ::-1])
    found = read_radiographs([file], [View.parse("pa")], UNIT, ood_detector=ood_detector)
    assert "but it looks right only when turned upside down" in found.notes[0]
    plain = read_radiographs([file], [View.parse("pa")], UNIT)
    np.testing.assert_array_equal(found.images, plain.images)


def test_a_view_that_is_not_certain_is_asked_for(tmp_path: Path, ood_detector: OODDetector) -> None:
    noise = saved(tmp_path / "noise.png", np.random.default_rng(0).integers(0, 255, (64, 64)))
    with pytest.raises(BadInput, match=r"noise\.png: declares no view; it looks like .*; give it with --views"):
        read_radiographs([noise], None, UNIT, ood_detector=ood_detector)
    with pytest.raises(BadInput, match=r"noise\.png: declares no view; give it with --views"):
        read_radiographs([noise], None, UNIT)
