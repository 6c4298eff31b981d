"""The exposed field, open air and what lies beyond, in pictures of a known chest."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from radiograph_files import chest
from raylift.radiographs import read_radiograph
from raylift.radiographs.field import collimated_border, continued, open_air

CHEST = chest(160, 160)
AIR = CHEST == 0


def picture(air: float, noise: float = 0.0, gamma: float = 1.0) -> np.ndarray:
    """Grey levels in [0, 1] of the chest, whose open air has the grey `air`."""
    levels = air + (1 - air) * (CHEST / CHEST.max()) ** gamma
    return np.clip(levels + np.random.default_rng(0).normal(0, noise, CHEST.shape), 0, 1).astype(np.float32)


@pytest.mark.parametrize("air", [0.0, 0.01, 0.05, 0.2])
@pytest.mark.parametrize("noise", [0.0, 0.004])
def test_air_is_air_whatever_its_grey(air: float, noise: float) -> None:
    mask, level = open_air(picture(air, noise), np.ones(CHEST.shape, bool))
    assert level is not None
    assert air < level < air + 0.05
    assert mask[AIR].mean() > 0.98
    assert CHEST[mask].max() < 0.3
    assert not mask[40:120, 30:130].any()  # lungs are no air, though they are dark


def test_lungs_are_not_taken_for_air_where_there_is_none() -> None:
    inside = np.s_[:, 30:130]
    mask, level = open_air(picture(0.0)[inside], np.ones(CHEST[inside].shape, bool))
    assert level is None
    assert not mask.any()


@pytest.mark.parametrize("air", [0.0, 0.02, 0.1])
def test_neither_bits_nor_the_grey_of_air_change_an_image(tmp_path: Path, air: float) -> None:
    def read(levels: np.ndarray, bits: int) -> np.ndarray:
        kind = np.uint8 if bits == 8 else np.uint16
        Image.fromarray(np.rint(levels * (2**bits - 1)).astype(kind)).save(tmp_path / "x.png")
        return read_radiograph(tmp_path / "x.png").image

    plain = read(picture(0.0, 0.002), 16)
    for bits in (8, 16):
        assert np.abs(read(picture(air, 0.002), bits) - plain).mean() < 0.06


def test_black_lines_that_begin_abruptly_are_a_border() -> None:
    levels = np.pad(picture(0.1), ((0, 0), (12, 7)))
    border = collimated_border(levels)
    assert border[:, :12].all()
    assert border[:, -7:].all()
    assert not border[:, 12:-7].any()
    assert not collimated_border(picture(0.0)).any()  # black lines of open air


def test_the_nearest_exposed_value_goes_on() -> None:
    image = np.arange(20.0).reshape(4, 5)
    exposed = np.zeros(image.shape, bool)
    exposed[1:3, 1:4] = True
    np.testing.assert_array_equal(continued(image, exposed), np.pad(image[1:3, 1:4], 1, mode="edge"))
