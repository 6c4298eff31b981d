import numpy as np
import pytest
from PIL import Image

from raylift.geometry import Geometry, View, VolumeGrid
from raylift.images.volume import Volume
from raylift.plots.montages import montage
from raylift.plots.pictures import planes, projections, xray_picture
from raylift.plots.sheets import SheetEntry, contact_sheet

# Spacing (x, y, z) of (2, 3, 4) mm.
GRID = VolumeGrid((8, 10, 12), (2.0, 3.0, 4.0), (0.0, 0.0, 0.0))


def marked(z: slice, y: slice, x: slice) -> Volume:
    array = np.full(GRID.shape, -1000.0, np.float32)
    array[z, y, x] = 500
    return Volume(array, GRID)


def quadrant(image: np.ndarray) -> tuple[str, str]:
    """Where the only bright part of an image is."""
    row, column = np.argwhere(image > image.min()).mean(0)
    middle = (np.asarray(image.shape) - 1) / 2
    return ("top" if row < middle[0] else "bottom", "left" if column < middle[1] else "right")


# Bright at the superior (last z), anterior (first y), left (last x) corner, through each middle plane.
LAST, FIRST, ALL = slice(-2, None), slice(0, 2), slice(None)


@pytest.mark.parametrize(
    ("plane", "volume", "where"),
    [
        ("axial", marked(ALL, FIRST, LAST), ("top", "right")),
        ("coronal", marked(LAST, ALL, LAST), ("top", "right")),
        ("sagittal", marked(LAST, FIRST, ALL), ("top", "left")),
    ],
)
def test_planes_are_upright_with_the_patients_left_on_the_right(plane, volume, where):
    assert quadrant(planes(volume)[plane].array) == where


def test_projections_are_hung_like_planes():
    corner = projections(marked(LAST, FIRST, LAST))
    assert quadrant(corner["ap"].array) == ("top", "right")
    assert quadrant(corner["lateral"].array) == ("top", "left")
    # 2 of 10 voxels along y are 1500 HU above air.
    assert corner["ap"].array.max() == pytest.approx(-1000 + 1500 * 2 / 10)


def test_a_volume_stored_the_other_way_round_looks_the_same():
    volume = marked(LAST, FIRST, LAST)
    flipped = VolumeGrid(GRID.shape, GRID.spacing, (22.0, 27.0, 28.0), (-1.0, 0, 0, 0, -1.0, 0, 0, 0, -1.0))
    turned = Volume(np.ascontiguousarray(volume.array[::-1, ::-1, ::-1]), flipped)
    for name, picture in projections(volume).items():
        np.testing.assert_allclose(projections(turned)[name].array, picture.array)


def test_pictures_have_their_size_in_millimetres():
    volume = marked(ALL, ALL, ALL)
    sizes = {name: picture.size for name, picture in (planes(volume) | projections(volume)).items()}
    x, y, z = 12 * 2.0, 10 * 3.0, 8 * 4.0
    assert sizes == {"axial": (y, x), "coronal": (z, x), "sagittal": (z, y), "ap": (z, x), "lateral": (z, y)}


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("ap", ("R", "L")),
        ("0", ("R", "L")),
        ("pa", ("R", "L")),
        ("180", ("L", "R")),
        ("lateral-right", ("A", "P")),
        ("lateral-left", ("A", "P")),
        ("270", ("P", "A")),
        ("45", ("", "")),
        ("scan.png", ("", "")),
    ],
)
def test_sides_of_xrays(name, sides):
    assert xray_picture(np.zeros((4, 4)), name).sides == sides


def test_sides_agree_with_the_geometry():
    left, anterior = np.array([50.0, 0, 0]), np.array([0, -50.0, 0])
    geometry = Geometry.preset("chest-stand")
    for name, point, letter in (("pa", left, "L"), ("180", left, "L"), ("lateral-left", anterior, "A")):
        view = View.parse(name)
        column = geometry.camera(view, (0, 0, 0)).project(point)[1]
        assert xray_picture(np.zeros((4, 4)), name).sides[int(column > 127.5)] == letter


@pytest.fixture
def head() -> Volume:
    array = np.random.default_rng(0).normal(-200, 300, (8, 10, 12))
    return Volume(array.astype(np.float32), GRID)


@pytest.mark.parametrize("views", [0, 2, 8])
def test_montage_is_written_with_and_without_truth(tmp_path, head, views):
    xrays = [(str(45 * i), np.random.default_rng(i).random((16, 16))) for i in range(views)]
    with_truth = montage(head, head, xrays, tmp_path / "new" / "a.png", "title")
    alone = montage(None, head, xrays, tmp_path / "b.png")
    assert Image.open(with_truth).height > Image.open(alone).height
    assert sorted(p.name for p in tmp_path.rglob("*.png")) == ["a.png", "b.png"]


def test_montage_takes_a_truth_on_another_grid_and_flat_xrays(tmp_path, head):
    truth = Volume(np.zeros((20, 20, 20), np.int16), VolumeGrid.box((10, 10, 10), (20, 20, 20), 2.5))
    assert montage(truth, head, [("ap", np.zeros((4, 4)))], tmp_path / "a.png").exists()


def test_montage_shows_more_attenuation_brighter_and_upright(tmp_path, head):
    xray = np.zeros((64, 64))
    xray[:32, 32:] = 3.0
    pixels = np.asarray(Image.open(montage(None, head, [("45", xray)], tmp_path / "a.png")).convert("L"), float)
    # The X-ray is the first of five columns of the upper of two rows: find its dark three quarters there.
    corner = pixels[: pixels.shape[0] // 2, : pixels.shape[1] // 5]
    rows, columns = np.nonzero(corner < 5)
    top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
    picture = corner[top : bottom + 1, left : right + 1]
    height, width = picture.shape
    quarters = {
        (v, h): np.median(picture[v * height // 2 :][: height // 2, h * width // 2 :][:, : width // 2])
        for v in (0, 1)
        for h in (0, 1)
    }
    assert quarters[0, 1] > 250
    assert max(value for key, value in quarters.items() if key != (0, 1)) < 5


def test_contact_sheet_with_accepted_and_rejected_cases(tmp_path, head):
    entries = [
        SheetEntry("a", "training", [("ap", np.random.default_rng(0).random((16, 16)))], head),
        SheetEntry("b", "rejected: covers only 212 mm along z", volume=head, rejected=True),
        SheetEntry("c", "rejected: no DICOM slices", rejected=True),
    ]
    (path,) = contact_sheet(entries, tmp_path / "sheet.png")
    assert path == tmp_path / "sheet.png"
    red, green, _ = np.moveaxis(np.asarray(Image.open(path).convert("RGB"), int), -1, 0)
    rows = np.nonzero((red - green > 100).any(axis=1))[0]
    assert rows.min() > red.shape[0] / 3  # the first of three rows has nothing in red
    assert rows.max() > red.shape[0] * 2 / 3


def test_contact_sheet_names_and_marks_each_xray_by_its_view(tmp_path, head, monkeypatch):
    shown = []
    monkeypatch.setattr("raylift.plots.sheets.save_figure", lambda figure, path: shown.append(figure))
    image = np.eye(8)
    entries = [
        SheetEntry("no X-rays", rejected=True),
        SheetEntry("a", xrays=[("180", image), ("45", image), ("ap", image)], volume=head),
        SheetEntry("b", xrays=[("lateral-right", image)]),
    ]
    contact_sheet(entries, tmp_path / "sheet.png")
    titled = {axes.get_title(): tuple(t.get_text() for t in axes.texts) for axes in shown[0].axes if axes.images}
    assert titled == {
        "X-ray 180": ("L", "R"),  # from behind, as the detector sees it
        "X-ray 45": ("", ""),
        "coronal": ("R", "L"),
        "axial": ("R", "L"),
        "sagittal": ("A", "P"),
        "X-ray lateral-right": ("A", "P"),
    }
    # Nothing but these has a title, of columns that show something else in another row least of all.
    assert {axes.get_title() for axes in shown[0].axes} == {*titled, ""}


def test_contact_sheet_of_many_cases_has_pages(tmp_path):
    paths = contact_sheet([SheetEntry(str(i)) for i in range(21)], tmp_path / "sheet.png")
    assert [path.name for path in paths] == ["sheet-001.png", "sheet-002.png"]
    assert all(path.exists() for path in paths)
    assert contact_sheet([], tmp_path / "none.png") == []
