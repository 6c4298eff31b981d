"""X-rays in a folder keep their views, unit and place, and radiographs land on the detector to scale."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PIL import Image

from radiograph_files import grey, write_dicom
from raylift.drr.operator import ProjectionOperator
from raylift.errors import BadInput
from raylift.geometry import Beam, Camera, Geometry, View, VolumeGrid
from raylift.images.xray_set import XraySet
from raylift.radiographs.intake import read_radiographs
from raylift.radiographs.sets import read_xrays, write_xrays

UNIT = Geometry.preset("chest-stand", 43)  # pixels of 10 mm
VIEWS = (View(0.0), View(180.0, True), View(45.0))


def xray_set(isocentre: tuple[float, float, float] | None = (1.5, -20.0, 300.25)) -> XraySet:
    images = np.random.default_rng(0).uniform(0, 8, (3, 43, 43)).astype(np.float32)
    return XraySet(images, VIEWS, UNIT, isocentre)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_xrays(xray_set(), tmp_path / "xrays", "torch")
    return tmp_path / "xrays"


def refused(folder: Path) -> str:
    with pytest.raises(BadInput) as caught:
        read_xrays(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(folder: Path, place: list[Any], value: Any) -> None:
    """Set one entry of the sidecar; take it out if None."""
    file = folder / "xrays.json"
    content = json.loads(file.read_text())
    target = content
    for key in place[:-1]:
        target = target[key]
    if value is None:
        del target[place[-1]]
    else:
        target[place[-1]] = value
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("isocentre", [(1.5, -20.0, 300.25), (0.0, 0.0, 0.0), None])
def test_round_trip(tmp_path: Path, isocentre: tuple[float, float, float] | None) -> None:
    written = xray_set(isocentre)
    paths = write_xrays(written, tmp_path, "torch")
    assert [path.name for path in paths] == ["ap.mha", "pa.mha", "45.mha"]
    for place in (tmp_path, str(tmp_path), tmp_path / "xrays.json"):
        found = read_xrays(place)
        np.testing.assert_array_equal(found.images, written.images)
        assert (found.views, found.geometry, found.isocentre) == (VIEWS, UNIT, isocentre)


def test_images_carry_the_detectors_pixel_size(folder: Path) -> None:
    image = sitk.ReadImage(str(folder / "ap.mha"))
    assert image.GetSpacing() == pytest.approx((10, 10))
    assert image.GetPixelID() == sitk.sitkFloat32
    assert sorted(path.name for path in folder.iterdir()) == ["45.mha", "ap.mha", "pa.mha", "xrays.json"]


def test_an_interrupted_rewrite_is_no_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, written = sitk.WriteImage, []

    def second_fails(*args: Any, **options: Any) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(args)
        write(*args, **options)

    monkeypatch.setattr(sitk, "WriteImage", second_fails)
    with pytest.raises(KeyboardInterrupt):
        write_xrays(xray_set(), folder, "torch")
    assert "no xrays.json" in refused(folder)


def test_images_must_fit_views_and_unit() -> None:
    images = np.zeros((3, 43, 43), np.float32)
    for shape in ((2, 43, 43), (3, 43, 42), (3, 44, 44)):
        with pytest.raises(ValueError, match="X-rays"):
            XraySet(np.zeros(shape, np.float32), VIEWS, UNIT)
    assert XraySet(images, VIEWS, UNIT).isocentre is None


def test_folder_without_sidecar(tmp_path: Path) -> None:
    assert "xrays.json" in refused(tmp_path)
    assert "xrays.json" in refused(tmp_path / "none")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (["geometry"], None),
        (["geometry", "pixels"], "many"),
        (["geometry", "source_axis_mm"], 5000),
        (["xrays"], None),
        (["xrays"], []),
        (["xrays"], [3]),
        (["xrays", 0, "file"], None),
        (["xrays", 0, "angle"], "front"),
        (["xrays", 1, "mirrored"], None),
        (["isocentre_lps_mm"], [1, 2]),
        (["isocentre_lps_mm"], None),
    ],
)
def test_damaged_sidecar(folder: Path, place: list[Any], value: Any) -> None:
    edit(folder, place, value)
    assert "xrays.json: damaged" in refused(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_sidecar_that_is_none(folder: Path, content: str) -> None:
    (folder / "xrays.json").write_text(content)
    assert "xrays.json: damaged" in refused(folder)


@pytest.mark.parametrize("name", ["../ap.mha", "sub/ap.mha", "/etc/hostname"])
def test_files_must_lie_beside_the_sidecar(folder: Path, name: str) -> None:
    (folder / "sub").mkdir()
    for other in (folder / "sub", folder.parent):
        (other / "ap.mha").write_bytes((folder / "ap.mha").read_bytes())
    edit(folder, ["xrays", 0, "file"], name)
    assert "damaged" in refused(folder)


def test_missing_image(folder: Path) -> None:
    (folder / "pa.mha").unlink()
    assert "pa.mha is missing" in refused(folder)


def test_image_of_another_size(folder: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.random.default_rng(0).random((40, 40))), str(folder / "pa.mha"))
    line = refused(folder)
    assert str(folder / "pa.mha") in line
    assert "40×40" in line
    assert "43" in line


def test_image_with_nan(folder: Path) -> None:
    image = np.ones((43, 43), np.float32)
    image[3, 4:6] = np.nan
    sitk.WriteImage(sitk.GetImageFromArray(image), str(folder / "45.mha"))
    line = refused(folder)
    assert str(folder / "45.mha") in line
    assert "2 pixels are NaN" in line


def radiograph(path: Path, pixels: int, spacing: float | None, marker: tuple[int, int]) -> Path:
    """Line integrals of 1 with one pixel of 9, with a pixel spacing (.mha) or without (.npy)."""
    image = np.ones((pixels, pixels), np.float32)
    image[marker] = 9
    if spacing is None:
        np.save(path.with_suffix(".npy"), image)
        return path.with_suffix(".npy")
    picture = sitk.GetImageFromArray(image)
    picture.SetSpacing((spacing, spacing))
    sitk.WriteImage(picture, str(path.with_suffix(".mha")))
    return path.with_suffix(".mha")


def test_small_radiographs_are_centred_and_go_on_beside_them(tmp_path: Path) -> None:
    # 215 mm of the detector's 430: 50 of 200 pixels are missing on each side.
    file = radiograph(tmp_path / "small", 100, 2.15, (10, 70))
    found = read_radiographs([file], [View(0.0)], UNIT)
    expected = np.ones((200, 200))
    expected[60, 120] = 9
    np.testing.assert_array_equal(found.images[0], expected)
    assert found.geometry == Geometry(1600, 1800, 430, 200)
    assert found.isocentre is None
    assert found.notes[0].startswith("small.mha: ")
    assert "taken to be centred on the detector" in found.notes[0]


def test_large_radiographs_are_cropped(tmp_path: Path) -> None:
    # 645 mm, of which the middle 430 meet the detector: 50 of 300 pixels go on each side.
    file = radiograph(tmp_path / "large", 300, 2.15, (60, 240))
    image = read_radiographs([file], [View(0.0)], UNIT).images[0]
    assert image.shape == (200, 200)
    assert np.argwhere(image == 9).tolist() == [[10, 190]]


def test_without_spacing_the_whole_detector_is_shown(tmp_path: Path) -> None:
    file = radiograph(tmp_path / "plain", 64, None, (5, 60))
    found = read_radiographs([file], [View(0.0)], UNIT)
    assert np.argwhere(found.images[0] == 9).tolist() == [[5, 60]]
    assert found.geometry.pixels == 64


def test_radiographs_of_different_sizes_meet_on_the_finer_one(tmp_path: Path) -> None:
    coarse = np.tile(np.arange(50, dtype=np.float32) / 10, (50, 1))
    np.save(tmp_path / "coarse.npy", coarse)
    fine = radiograph(tmp_path / "fine", 100, None, (20, 30))
    found = read_radiographs([tmp_path / "coarse.npy", fine], [View(0.0), View(90.0)], UNIT)
    assert found.images.shape == (2, 100, 100)
    # Fine pixel i covers [i, i + 1) / 100 of the edge: coarse position (i + 0.5) / 2 - 0.5, constant past the ends.
    position = np.clip((np.arange(100) + 0.5) / 2 - 0.5, 0, 49)
    np.testing.assert_allclose(found.images[0], np.tile(position / 10, (100, 1)), atol=1e-5)
    assert np.argwhere(found.images[1] == 9).tolist() == [[20, 30]]


def test_one_view_per_radiograph(tmp_path: Path) -> None:
    file = radiograph(tmp_path / "one", 64, None, (5, 60))
    with pytest.raises(BadInput, match="2 views given"):
        read_radiographs([file], [View(0.0), View(90.0)], UNIT)


@pytest.mark.parametrize("spacing", [1e-6, 0.001, 900.0])
def test_pixel_sizes_that_no_detector_has(tmp_path: Path, spacing: float) -> None:
    file = radiograph(tmp_path / "odd", 64, spacing, (5, 60))
    with pytest.raises(BadInput, match=r"odd\.mha: pixels of .* mm"):
        read_radiographs([file], [View(0.0)], UNIT)


@pytest.mark.parametrize("angle", [0, 30, 60, 90, 91, 120, 150, 180, 181, 210, 240, 270, 300, 330])
def test_grey_levels_hang_for_reading_from_any_angle(tmp_path: Path, angle: float) -> None:
    Image.fromarray(grey(8)).save(tmp_path / "picture.png")
    dicom = write_dicom(tmp_path / "file.dcm", grey(16) // 16)
    for file in (tmp_path / "picture.png", dicom):
        for given in (View(angle), View(angle, True)):
            (view,) = read_radiographs([file], [given], UNIT).views
            assert view.angle == angle
            # To the left (+x) in what is rather frontal, to the back (+y) in what is rather lateral.
            assert max(view.u, key=abs) > 0


@pytest.mark.parametrize("view", [View(180.0), View(180.0, True), View(270.0), View(90.0, True)])
def test_line_integrals_keep_their_view(tmp_path: Path, view: View) -> None:
    for spacing in (2.15, None):
        file = radiograph(tmp_path / "drr", 64, spacing, (5, 60))
        assert read_radiographs([file], [view], UNIT).views == (view,)


@pytest.mark.parametrize(("kind", "angles"), [("frontal", (0, 1, 40, 179, 182)), ("lateral", (50, 89, 91, 268.5, 271))])
def test_grey_levels_of_a_slightly_turned_patient(tmp_path: Path, kind: str, angles: tuple[float, ...]) -> None:
    Image.fromarray(grey(8)).save(tmp_path / "picture.png")
    for angle in angles:
        assert kind in read_radiographs([tmp_path / "picture.png"], [View(angle)], UNIT).notes[0]


@pytest.mark.parametrize(
    ("position", "view", "fits"),
    [
        ("PA", "pa", True),
        ("AP", "180", True),  # from either side
        ("LL", "lateral-right", True),
        ("RLO", "91", True),  # says nothing that Raylift knows
        ("PA", "lateral-left", False),
        ("AP", "91", False),
        ("LL", "ap", False),
        ("RL", "pa", False),
        ("LAT", "1", False),
    ],
)
def test_dicom_of_another_view(tmp_path: Path, position: str, view: str, fits: bool) -> None:
    file = write_dicom(tmp_path / "file.dcm", grey(16) // 16, ViewPosition=position)
    given = View.parse(view)
    if fits:
        read_radiographs([file], [given], UNIT)
        return
    xrays = read_radiographs([file], [given], UNIT)
    assert xrays.views == (given.oriented,)
    assert re.search(rf"view {given.name} as given, though the file declares [a-z-]+", xrays.notes[0])


# --- Cameras of their own -------------------------------------------------------------------------------------------

FRONT = Camera((10.0, -1200, 0), (-150.0, 300, 120), (0.0, 0, -3), (4.0, 0, 0), 90, 70)
SIDE = Camera((900.0, 0, 200), (-300.0, -140, 180), (0.0, 0, -5), (0.0, 4, 0), 60, 80, Beam.SLOT)


def own_set(folder: Path, isocentre: list[float] | None = None) -> list[np.ndarray]:
    """A set of two X-rays with cameras of their own, of a volume of blocks."""
    grid = VolumeGrid.box((5, -3, 2), (20, 18, 16), 12.0)
    mu = torch.rand(1, *grid.shape, generator=torch.Generator().manual_seed(0)) * 0.02
    images = [ProjectionOperator(grid, [camera])(mu)[0, 0].numpy() for camera in (FRONT, SIDE)]
    xrays = []
    for number, (camera, image) in enumerate(zip((FRONT, SIDE), images, strict=True)):
        np.save(folder / f"{number}.npy", image)
        xrays.append({"file": f"{number}.npy", "camera": camera.to_dict()})
    (folder / "xrays.json").write_text(json.dumps({"isocentre_lps_mm": isocentre, "xrays": xrays}))
    return images


def test_cameras_of_their_own_are_brought_to_one_number_of_pixels(tmp_path: Path) -> None:
    images = own_set(tmp_path, [1.0, 2.0, 3.0])
    xrays = read_xrays(tmp_path)
    assert xrays.images.shape == (2, 90, 90)
    assert xrays.isocentre == (1, 2, 3)
    assert [view.name for view in xrays.views] == ["ap", "lateral-right"]
    assert xrays.cameras == (FRONT.with_pixels(90, 90), SIDE.with_pixels(90, 90))
    for image, given in zip(xrays.images, images, strict=True):
        assert image.mean() == pytest.approx(given.mean(), rel=0.01)
    point = np.array([20.0, -30, 40])
    row, column = (round(float(x)) for x in xrays.cameras[0].project(point))
    given_row, given_column = (round(float(x)) for x in FRONT.project(point))
    assert xrays.images[0][row, column] == pytest.approx(images[0][given_row, given_column], abs=0.3)


def test_without_an_isocentre_it_is_where_the_middle_rays_meet(tmp_path: Path) -> None:
    own_set(tmp_path)
    isocentre = read_xrays(tmp_path).isocentre
    assert isocentre is not None
    for camera in (FRONT, SIDE):
        start, end = camera.middle_ray
        along = (end - start) / np.linalg.norm(end - start)
        assert np.linalg.norm(np.cross(np.subtract(isocentre, start), along)) < 45  # they pass each other


def test_cameras_of_their_own_survive_being_written(tmp_path: Path) -> None:
    own_set(tmp_path)
    xrays = read_xrays(tmp_path)
    write_xrays(xrays, tmp_path / "again", "torch")
    again = read_xrays(tmp_path / "again")
    np.testing.assert_allclose(again.images, xrays.images, atol=1e-6)
    for one, other in zip(again.cameras, xrays.cameras, strict=True):
        np.testing.assert_allclose(one.project([1.0, 2, 3]), other.project([1.0, 2, 3]), atol=1e-6)


def test_an_image_of_other_pixels_than_its_camera(tmp_path: Path) -> None:
    own_set(tmp_path)
    np.save(tmp_path / "1.npy", np.random.default_rng(0).random((60, 79)).astype(np.float32))
    with pytest.raises(
        BadInput, match=r"1\.npy: 60×79 pixels, its camera has 60×80; correct the camera in xrays\.json"
    ):
        read_xrays(tmp_path)


def test_a_camera_that_is_none(tmp_path: Path) -> None:
    own_set(tmp_path)
    record = json.loads((tmp_path / "xrays.json").read_text())
    record["xrays"][0]["camera"]["row_step_mm"] = [0, 0, 0]
    (tmp_path / "xrays.json").write_text(json.dumps(record))
    with pytest.raises(BadInput, match=r"xrays\.json: damaged \(a camera needs pixels, and two steps"):
        read_xrays(tmp_path)
