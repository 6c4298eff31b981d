"""Tone curves recognised from pictures."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from raylift.data.phantom import thorax_phantom
from raylift.data.thorax import find_thorax
from raylift.drr.projector import project_volume
from raylift.errors import BadInput
from raylift.geometry import Geometry, View
from raylift.radiographs.tone import Grey
from raylift.radiographs.tone_network import (
    KNOTS,
    ToneModel,
    ToneNetwork,
    at_ranks,
    pretrained_tone_model,
    ranks_of,
    small_picture,
)

VIEWS = (View.parse("pa"), View.parse("lateral-left"))
TONES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda x: x,
    "gamma": lambda x: x**0.5,
    "film": lambda x: 1 / (1 + np.exp(-(x - 0.5) / 0.15)),
    "logarithm": lambda x: np.log1p(10 * x),
}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Line integrals of a phantom that no network has seen, for `VIEWS`."""
    phantom = thorax_phantom(3, 5.0)
    return project_volume(phantom, Geometry.preset("chest-stand", 128), VIEWS, find_thorax(phantom).centre)


def test_ranks_are_the_share_of_darker_pixels() -> None:
    levels = np.array([[5.0, 1], [5, 9]])
    np.testing.assert_array_equal(ranks_of(levels, np.ones((2, 2), bool)), [[0.5, 0.125], [0.5, 0.875]])
    exposed = np.array([[True, True], [False, True]])
    np.testing.assert_allclose(ranks_of(levels, exposed), [[0.5, 1 / 6], [0, 5 / 6]], atol=1e-6)


def test_integrals_at_ranks_are_interpolated() -> None:
    knots = torch.arange(KNOTS, dtype=torch.float32)[None] ** 2
    ranks = torch.tensor([[[0.0, 1.5 / (KNOTS - 1)], [2 / (KNOTS - 1), 1]]])
    expected = torch.tensor([[[0, 2.5], [4, (KNOTS - 1) ** 2]]])
    torch.testing.assert_close(at_ranks(knots, ranks), expected, rtol=1e-3, atol=1e-3)


def test_a_small_picture_is_padded_without_being_exposed() -> None:
    picture, exposed = small_picture(np.ones((128, 64)), np.ones((128, 64), bool))
    assert picture.shape == (64, 64)
    np.testing.assert_array_equal(exposed.any(0), (np.arange(64) >= 16) & (np.arange(64) < 48))


@pytest.mark.parametrize("view", range(2), ids=["pa", "lateral-left"])
def test_one_xray_under_all_tone_curves_is_the_same(images: np.ndarray, view: int) -> None:
    image, found = images[view], {}
    for name, tone in TONES.items():
        levels = np.rint(4095 * tone(image / image.max()) / tone(np.ones(1))).astype(np.float32)
        grey = Grey(Path("x.png"), levels, polarity_known=True)
        found[name] = grey.line_integrals(VIEWS[view], pretrained_tone_model()).image
    for name, one in found.items():
        assert np.abs(one - found["linear"]).mean() < 0.02 * image.mean(), name
    # A phantom is no patient; what it is taken for is still near.
    assert np.abs(found["linear"] - image).mean() < 0.4 * image.mean()
    assert found["linear"][image < 0.02].mean() < 0.1


def test_letters_and_a_crop_change_little(images: np.ndarray) -> None:
    levels = np.rint(4095 * (images[0] / images[0].max()) ** 0.7).astype(np.float32)
    model = pretrained_tone_model()
    whole = Grey(Path("x.png"), levels).line_integrals(VIEWS[0], model).image
    lettered = levels.copy()
    lettered[4:9, 4:20] = 4095
    changed = Grey(Path("x.png"), lettered).line_integrals(VIEWS[0], model).image
    assert np.abs(changed - whole)[20:].mean() < 0.1 * whole.mean()
    cropped = Grey(Path("x.png"), levels[12:116, 12:116]).line_integrals(VIEWS[0], model).image
    assert np.abs(cropped - whole[12:116, 12:116]).mean() < 0.2 * whole.mean()


def test_the_curve_tells_its_uncertainty(images: np.ndarray) -> None:
    model = pretrained_tone_model()
    curve = model.curve(images[0], np.ones(images[0].shape, bool), VIEWS[0])
    assert curve.deviation is not None
    assert (curve.deviation >= 0.99 * model.error * curve.integrals).all()
    assert (np.diff(curve.levels) > 0).all()
    assert (np.diff(curve.integrals) >= 0).all()


def test_a_mirrored_view_sees_the_picture_unmirrored(images: np.ndarray) -> None:
    model, exposed = pretrained_tone_model(), np.ones(images[0].shape, bool)
    mirrored = model.curve(images[0], exposed, View(180.0, mirrored=True))
    plain = model.curve(images[0][:, ::-1], exposed, View(180.0))
    np.testing.assert_allclose(mirrored.integrals, plain.integrals, rtol=1e-4)


def test_a_model_survives_its_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ToneModel((ToneNetwork().eval(), ToneNetwork().eval()), 0.25)
    model.save(tmp_path / "tone.safetensors")
    read = ToneModel.load(tmp_path / "tone.safetensors")
    levels = np.random.default_rng(0).random((64, 64))
    curves = [one.curve(levels, np.ones((64, 64), bool), VIEWS[0]) for one in (model, read)]
    np.testing.assert_array_equal(curves[0].integrals, curves[1].integrals)
    assert read.error == 0.25


def test_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "tone.safetensors").write_bytes(b"0" * 100)
    with pytest.raises(BadInput, match=r"tone\.safetensors: damaged"):
        ToneModel.load(tmp_path / "tone.safetensors")
