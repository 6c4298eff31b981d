"""The scale of radiographs of a phantom, told by its chest."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from radiograph_files import write_dicom
from raylift.cli.parsing import parse_sizes
from raylift.data.phantom import thorax_phantom
from raylift.data.thorax import find_thorax
from raylift.drr.projector import project_volume
from raylift.errors import WrongUsage
from raylift.geometry import Geometry, View
from raylift.images.xray_set import XraySet
from raylift.model.weights import load_weights
from raylift.radiographs.intake import read_radiographs
from raylift.radiographs.radiograph import ImageSize

STAND = Geometry.preset("chest-stand", 256)
RIGHT = STAND.pitch  # mm
VIEWS = (View.parse("pa"), View.parse("lateral-left"))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    phantom = thorax_phantom(0)
    return project_volume(phantom, STAND, VIEWS, find_thorax(phantom).centre)


def read(files: list[Path], sizes: list[ImageSize | None] | None = None) -> XraySet:
    return read_radiographs(files, VIEWS, STAND, ood_detector=load_weights(None).ood_detector, sizes=sizes)


def write(folder: Path, images: np.ndarray, pixel_mm: float) -> list[Path]:
    levels = np.rint(4095 * images / images.max((1, 2), keepdims=True))
    return [
        write_dicom(folder / f"{k}.dcm", level, ImagerPixelSpacing=[pixel_mm, pixel_mm])
        for k, level in enumerate(levels)
    ]


@pytest.mark.parametrize("wrong", [0.42, 0.6, 1.7, 2.0])
def test_a_pixel_spacing_that_no_chest_has_is_a_reason_for_mistrust(
    tmp_path: Path, images: np.ndarray, wrong: float
) -> None:
    assert not read(write(tmp_path, images, RIGHT)).warnings
    files = write(tmp_path, images, wrong * RIGHT)
    found = read(files)
    assert [warning.split(":")[0] for warning in found.warnings] == ["0.dcm", "1.dcm"]
    for warning in found.warnings:
        assert "give the right ones with --pixel-size" in warning
        likely = float(warning.split("likely ")[1].split(" mm")[0])
        assert abs(np.log(likely / RIGHT)) < 0.2
    corrected = read(files, [ImageSize(pixel_mm=RIGHT)] * 2)
    assert not corrected.warnings
    np.testing.assert_allclose(corrected.images, read(write(tmp_path, images, RIGHT)).images)
    assert "pixels of 1.68 mm as given" in corrected.notes[0]


@pytest.mark.parametrize(("margin", "estimated"), [(0, False), (90, True)])
def test_the_scale_of_a_picture_without_spacing_is_estimated(
    tmp_path: Path, images: np.ndarray, margin: int, estimated: bool
) -> None:
    files = [tmp_path / "0.png", tmp_path / "1.png"]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(np.rint(255 * np.pad(image, margin) / image.max()).astype(np.uint8)).save(file)
    width = (256 + 2 * margin) * RIGHT
    found = read(files)
    for note in found.notes[:2]:
        numbers = re.search(r"assumed to be (\d+) mm wide \((\d+) to (\d+) fit a usual chest\)", note)
        assert numbers is not None
        assumed, low, high = map(float, numbers.groups())
        assert (assumed == 430) != estimated
        assert low <= assumed <= high
        assert abs(np.log(assumed / width)) <= 0.5 * abs(np.log(430 / width))
    given = read(files, [ImageSize(edge_mm=width)] * 2)
    assert f"pixels of {RIGHT:.3g} mm as given" in given.notes[0]


def test_sizes_on_the_command_line() -> None:
    assert parse_sizes("", "", 2) is None
    assert parse_sizes("0.2", "", 2) == [ImageSize(pixel_mm=0.2)] * 2
    assert parse_sizes("", "430,350", 2) == [ImageSize(edge_mm=430), ImageSize(edge_mm=350)]
    for wrong in (("0.2", "430"), ("a", ""), ("-1", ""), ("0.1,0.2,0.3", ""), ("nan", "")):
        with pytest.raises(WrongUsage):
            parse_sizes(*wrong, 2)
