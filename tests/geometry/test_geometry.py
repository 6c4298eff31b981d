"""Where source, detector and voxels are, by hand arithmetic: no phantom or view here looks like its mirror image."""

import json
import math

import numpy as np
import pytest

from raylift.geometry import PRESETS, Geometry, View, VolumeGrid

# Index axis x runs along world +y, y along world -x, z along world +z: a quarter turn about z.
TURNED = VolumeGrid((4, 3, 2), (1.0, 2.0, 5.0), (10.0, 20.0, -30.0), (0, -1, 0, 1, 0, 0, 0, 0, 1))
ISOCENTRE = (7.0, -11.0, 100.0)
CHEST = Geometry(sad=1600.0, sdd=1800.0, detector_mm=430.0, pixels=43)  # a pitch of 10 mm
ANGLES = (0.0, 35.0, 90.0, 180.0, 270.0)


def test_affine_of_a_turned_grid() -> None:
    # Index (x, y, z) = (1, 2, 3): 1·1 mm along +y, 2·2 mm along -x, 3·5 mm along +z.
    assert TURNED.index_to_world @ [1, 2, 3, 1] == pytest.approx([10 - 4, 20 + 1, -30 + 15, 1])
    assert TURNED.world_to_index @ [6, 21, -15, 1] == pytest.approx([1, 2, 3, 1])


def test_centre_of_a_turned_grid() -> None:
    # The middle index is (0.5, 1, 1.5).
    assert TURNED.centre == pytest.approx((10 - 2, 20 + 0.5, -30 + 7.5))


def test_corners_are_the_outer_faces() -> None:
    corners = TURNED.corners
    assert corners.shape == (8, 3)
    # Half a voxel beyond the first and last centres: -x runs over 3 voxels of 2 mm, +y over 2 of 1 mm, +z over 4 of 5.
    assert corners.min(0) == pytest.approx([10 + 1 - 6, 20 - 0.5, -30 - 2.5])
    assert corners.max(0) == pytest.approx([10 + 1, 20 - 0.5 + 2, -30 - 2.5 + 20])
    assert len({tuple(np.round(corner, 6)) for corner in corners}) == 8


def test_points_stand_in_array_order() -> None:
    points = TURNED.points()
    assert points.shape == (4, 3, 2, 3)
    assert points[3, 2, 1] == pytest.approx([6, 21, -15])
    assert points[0, 0, 0] == pytest.approx(TURNED.origin)


def test_cube_and_box_surround_their_centre() -> None:
    cube = VolumeGrid.cube((1, 2, 3), 320, 64)
    assert cube.shape == (64, 64, 64)
    assert cube.spacing == (5, 5, 5)
    assert cube.centre == pytest.approx((1, 2, 3))
    assert cube.corners.min(0) == pytest.approx([-159, -158, -157])
    box = VolumeGrid.box((1, 2, 3), (10, 20, 31), 2.0)
    assert box.shape == (10, 20, 31)
    assert box.corners.min(0) == pytest.approx([1 - 31, 2 - 20, 3 - 10])
    assert box.corners.max(0) == pytest.approx([1 + 31, 2 + 20, 3 + 10])


def test_grid_survives_json() -> None:
    assert VolumeGrid.from_dict(json.loads(json.dumps(TURNED.to_dict()))) == TURNED


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("spacing_xyz_mm", [1, 0, 1]),
        ("spacing_xyz_mm", [1, math.nan, 1]),
        ("shape_zyx", [4, 0, 2]),
        ("shape_zyx", [4, 2]),
        ("shape_zyx", [4, math.inf, 2]),
        ("origin_lps_mm", ["a", 0, 0]),
        ("origin_lps_mm", [0, 0, -math.inf]),
        ("direction", [1, 0, 0, 0, 1, 0, 0, 0, math.nan]),
        ("direction", [1, 0, 0, 0, 1, 0, 0, 0, 0]),  # singular
        ("direction", [2, 0, 0, 0, 1, 0, 0, 0, 1]),  # scales
        ("direction", [1, 0.1, 0, 0, 1, 0, 0, 0, 1]),  # shears
        ("direction", [1, 0, 0, 1]),
    ],
)
def test_malformed_grid(key: str, value: list[object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (the message is Python's own for some)
        VolumeGrid.from_dict({**TURNED.to_dict(), key: value})


def test_rounded_cosines_are_a_direction() -> None:
    turn = [0.866, -0.5, 0, 0.5, 0.866, 0, 0, 0, 1]  # 30°
    assert VolumeGrid.from_dict({**TURNED.to_dict(), "direction": turn}).direction == pytest.approx(turn)


@pytest.mark.parametrize(
    ("text", "angle", "mirrored"),
    [
        ("ap", 0, False),
        (" PA ", 180, True),
        ("lateral-left", 270, True),
        ("Lateral-Right", 90, False),
        ("0", 0, False),
        (45.5, 45.5, False),
        ("-90", 270, False),
        ("450", 90, False),
        (View(12.0, True), 12, True),
    ],
)
def test_parse_view(text: str | float | View, angle: float, mirrored: bool) -> None:
    assert View.parse(text) == View(angle, mirrored)


@pytest.mark.parametrize("text", ["", "left", "nan", "inf", "9O"])
def test_what_is_no_view(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no view.*lateral-left"):
        View.parse(text)


@pytest.mark.parametrize("name", ["ap", "pa", "lateral-left", "lateral-right", "45", "30.5"])
def test_name_of_a_view_parses_back(name: str) -> None:
    assert View.parse(name).name == name


def test_an_unmirrored_half_turn_is_not_called_pa() -> None:
    assert View(180.0).name == "180"
    assert View(90.0, True).name != "lateral-right"


@pytest.mark.parametrize(
    ("angle", "source", "u"),
    [
        (0, (0, -1600, 0), (1, 0, 0)),  # in front; the patient's left on the image's right
        (90, (1600, 0, 0), (0, 1, 0)),  # at the left; the back on the right
        (180, (0, 1600, 0), (-1, 0, 0)),
        (270, (-1600, 0, 0), (0, -1, 0)),
    ],
)
def test_source_and_columns(angle: float, source: tuple[float, ...], u: tuple[float, ...]) -> None:
    view = View(angle)
    assert np.asarray(CHEST.camera(view, ISOCENTRE).source) - ISOCENTRE == pytest.approx(source, abs=1e-9)
    assert view.u == pytest.approx(u, abs=1e-12)
    assert view.v == pytest.approx([0, 0, -1])


@pytest.mark.parametrize(("mirrored", "alike"), [("pa", "ap"), ("lateral-left", "lateral-right")])
def test_mirrored_views_read_like_those_from_the_other_side(mirrored: str, alike: str) -> None:
    first, second = View.parse(mirrored), View.parse(alike)
    assert first.u == pytest.approx(second.u, abs=1e-12)
    assert first.towards_source == pytest.approx(-second.towards_source)


def test_magnification_by_hand() -> None:
    # 100 mm nearer the source than the isocentre: 1800 / (1600 - 100) = 1.2 times on the detector.
    point = np.add(ISOCENTRE, (50, -100, 30))
    assert CHEST.camera(View(0.0), ISOCENTRE).project(point) == pytest.approx([21 - 30 * 1.2 / 10, 21 + 50 * 1.2 / 10])
    # Seen from the left, it is 50 mm nearer the source: 1800 / 1550.
    size = 1800 / 1550 / 10
    assert CHEST.camera(View(90.0), ISOCENTRE).project(point) == pytest.approx([21 - 30 * size, 21 - 100 * size])
    # From behind it is farther: 1800 / 1700, and on the other side, unless oriented as a PA.
    size = 1800 / 1700 / 10
    assert CHEST.camera(View(180.0), ISOCENTRE).project(point) == pytest.approx([21 - 30 * size, 21 - 50 * size])
    assert CHEST.camera(View.parse("pa"), ISOCENTRE).project(point) == pytest.approx([21 - 30 * size, 21 + 50 * size])


def test_parallel_rays_do_not_magnify() -> None:
    geometry = Geometry(1600, 1800, 430, 43, parallel=True)
    point = np.add(ISOCENTRE, (50, -100, 30))
    assert geometry.camera(View(0.0), ISOCENTRE).project(point) == pytest.approx([18, 26])
    assert geometry.camera(View(90.0), ISOCENTRE).project(point) == pytest.approx([18, 11])
    start, end = geometry.camera(View(90.0), ISOCENTRE).rays()
    assert (start - end).reshape(-1, 3) == pytest.approx(np.tile([1800.0, 0, 0], (43 * 43, 1)))


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("view", [View(a, m) for a in ANGLES for m in (False, True)], ids=lambda v: v.name)
def test_a_pixels_shadow_is_the_pixel(view: View, parallel: bool) -> None:
    geometry = Geometry(541, 949, 500, 16, parallel)
    rows, columns = np.mgrid[:16, :16]
    start, end = geometry.camera(view, ISOCENTRE).rays()
    for t in (1.0, 0.6):  # on the detector, and anywhere else on the ray
        project = geometry.camera(view, ISOCENTRE).project(start + t * (end - start))
        assert project == pytest.approx(np.stack([rows, columns], -1))


def test_pixels_by_hand() -> None:
    pixels = CHEST.camera(View(0.0), (0, 0, 0)).rays()[1]
    assert pixels.shape == (43, 43, 3)
    assert pixels[0, 0] == pytest.approx([-210, 200, 210])  # the patient's right, behind, superior
    assert pixels[0, 42] == pytest.approx([210, 200, 210])
    assert pixels[42, 0] == pytest.approx([-210, 200, -210])


def test_all_rays_of_a_cone_start_at_the_source() -> None:
    start, end = CHEST.camera(View(90.0), ISOCENTRE).rays()
    assert start.shape == end.shape == (43, 43, 3)
    assert np.ptp(start.reshape(-1, 3), 0) == pytest.approx([0, 0, 0])
    assert start[5, 5] == pytest.approx([1607, -11, 100])


@pytest.mark.parametrize(
    ("name", "sad", "sdd", "detector"),
    [("chest-stand", 1600, 1800, 430), ("x2ct", 541, 949, 500)],
)
def test_presets(name: str, sad: float, sdd: float, detector: float) -> None:
    geometry = Geometry.preset(name, 100)
    assert (geometry.sad, geometry.sdd, geometry.detector_mm, geometry.parallel) == (sad, sdd, detector, False)
    assert geometry.pitch == pytest.approx(detector / 100)
    assert geometry.with_pixels(50).pitch == pytest.approx(detector / 50)


def test_parallel_preset_and_unknown_one() -> None:
    assert Geometry.preset("parallel").parallel
    with pytest.raises(ValueError, match="chest-stand"):
        Geometry.preset("chest")


@pytest.mark.parametrize("name", PRESETS)
def test_geometry_survives_json(name: str) -> None:
    geometry = Geometry.preset(name, 77)
    assert Geometry.from_dict(json.loads(json.dumps(geometry.to_dict()))) == geometry


@pytest.mark.parametrize(
    "numbers",
    [(0, 1800, 430, 64), (1800, 1600, 430, 64), (1600, 1600, 430, 64), (1600, 1800, 0, 64), (1600, 1800, 430, 0),
     (math.nan, 1800, 430, 64)],
)  # fmt: skip
def test_impossible_geometry(numbers: tuple[float, float, float, int]) -> None:
    with pytest.raises(ValueError, match="0 < sad < sdd"):
        Geometry(*numbers)


def test_opposite() -> None:
    assert View(0.0).opposite == View.parse("pa")
    assert View(90.0).opposite == View.parse("lateral-left")
    assert View(30.0).opposite.opposite == View(30.0)
    assert View(30.0).opposite.u == pytest.approx(View(30.0).u)


def test_a_unit_turned_about_the_long_axis_is_one_of_another_angle() -> None:
    turned, plain = View(35.0, turn=(0.0, 0.0, 12.0)), View(47.0)
    for ours, theirs in zip(CHEST.camera(turned, ISOCENTRE).rays(), CHEST.camera(plain, ISOCENTRE).rays(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-9)
    assert turned.opposite.towards_source == pytest.approx(View(227.0).towards_source)


def test_a_displaced_unit_by_hand() -> None:
    # Turned by 90° about x, the source in front (-y) goes below (-z), rows run from back to front.
    view = View(0.0, turn=(90.0, 0.0, 0.0), shift=(1.0, 2.0, 3.0))
    assert view.towards_source == pytest.approx([0, 0, -1])
    assert view.u == pytest.approx([1, 0, 0])
    assert view.v == pytest.approx([0, 1, 0])
    assert np.asarray(CHEST.camera(view, ISOCENTRE).source) == pytest.approx([7 + 1, -11 + 2, 100 + 3 - 1600])
    middle = CHEST.camera(view, ISOCENTRE).rays()[1][21, 21]
    assert middle == pytest.approx([7 + 1, -11 + 2, 100 + 3 + 200])


@pytest.mark.parametrize("parallel", [False, True])
def test_the_shadow_of_a_displaced_unit_is_where_its_rays_end(parallel: bool) -> None:
    unit = Geometry(1600.0, 1800.0, 430.0, 43, parallel)
    view = View(90.0, True, turn=(3.0, -4.0, 5.0), shift=(6.0, -7.0, 8.0))
    start, end = unit.camera(view, ISOCENTRE).rays()
    found = unit.camera(view, ISOCENTRE).project(0.3 * start + 0.7 * end)
    rows, columns = np.meshgrid(np.arange(43), np.arange(43), indexing="ij")
    np.testing.assert_allclose(found, np.stack([rows, columns], -1), atol=1e-8)


def test_views_survive_json() -> None:
    assert View(90.0, True).to_dict() == {"angle": 90.0, "mirrored": True}
    view = View(270.0, True, turn=(3.0, -4.0, 5.0), shift=(6.0, -7.0, 8.0))
    assert View.from_dict(json.loads(json.dumps(view.to_dict()))) == view
    with pytest.raises(ValueError, match="'nan' is not a number from -360 to 360"):
        View.from_dict({"angle": 0.0, "mirrored": False, "turn_xyz_deg": [0, math.nan, 0]})
    with pytest.raises(ValueError, match="not a list of 3"):
        View.from_dict({"angle": 0.0, "mirrored": False, "shift_xyz_mm": [0, 0]})
