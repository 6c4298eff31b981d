"""Projection matrices: round trips, and cameras that others describe."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from raylift.drr.plastimatch import program
from raylift.geometry import Beam, Camera, Geometry, View
from raylift.geometry.matrices import from_opencv, from_plastimatch, from_rtk, to_opencv, to_plastimatch, to_rtk

OBLIQUE = Camera((300.0, -900, 80), (-180.0, 260, 170), (2.0, 1, -8), (6.5, 3, 0.4), 40, 52)
PLASTIMATCH = program()


def same(one: Camera, other: Camera) -> None:
    assert (one.rows, one.columns) == (other.rows, other.columns)
    for name in ("source", "corner", "row_step", "column_step"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_opencv(scale: float) -> None:
    matrix = scale * to_opencv(OBLIQUE)
    same(from_opencv(matrix, 40, 52, OBLIQUE.distance), OBLIQUE)
    points = np.random.default_rng(0).normal(size=(7, 3)) * 60
    a, b, w = matrix @ np.concatenate([points, np.ones((7, 1))], 1).T
    assert (w > 0).all()
    np.testing.assert_allclose(np.stack([b / w, a / w], 1), OBLIQUE.project(points))


def test_an_intrinsic_and_an_extrinsic_matrix() -> None:
    """As OpenCV writes them: K [R | t], with the focal length in pixels and the principal point."""
    intrinsic = np.array([[2000.0, 0, 310], [0, 2000, 255], [0, 0, 1]])
    rotation = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # looks along +y, rows run down
    camera = from_opencv(intrinsic @ np.hstack([rotation, [[0], [0], [1000.0]]]), 512, 640, distance=1200.0)
    assert camera.source == pytest.approx((0, -1000, 0))
    assert camera.column_step == pytest.approx((0.6, 0, 0))  # 1200 mm / 2000 pixels
    assert camera.row_step == pytest.approx((0, 0, -0.6))
    assert camera.project([0, 200, 0]) == pytest.approx([255, 310])
    assert camera.view.name == "ap"


def test_rtk() -> None:
    origin, spacing = (-150.0, 120.0), (0.8, -0.9)
    matrix = to_rtk(OBLIQUE, origin, spacing)
    same(from_rtk(matrix, 40, 52, OBLIQUE.distance, origin, spacing), OBLIQUE)


def test_rtk_at_gantry_angle_0() -> None:
    """RTK's matrix of a source at z = SID that looks down at a patient on the back: a frontal X-ray from the front."""
    matrix = np.array([[-1536.0, 0, 0, 0], [0, -1536, 0, 0], [0, 0, 1, -1000]])
    # RTK's rows run upwards: with a negative spacing, row 0 is the uppermost.
    camera = from_rtk(matrix, 256, 256, 1536, origin=(-204.0, 204.0), spacing=(1.6, -1.6))
    same(camera, Geometry(1000, 1536, 256 * 1.6, 256).camera(View(0.0), (0, 0, 0)))


def test_plastimatch_round_trip() -> None:
    text = to_plastimatch(OBLIQUE, 900.0, (20.5, 17.0))
    found = from_plastimatch(text, 40, 52)
    np.testing.assert_allclose(
        found.project([[1, 2, 3], [40, -30, 20]]), OBLIQUE.project([[1, 2, 3], [40, -30, 20]]), rtol=1e-5
    )
    assert found.distance == pytest.approx(OBLIQUE.distance, rel=1e-6)


@pytest.mark.skipif(PLASTIMATCH is None, reason="plastimatch is not installed")
def test_a_file_and_an_image_of_plastimatch_itself(tmp_path: Path) -> None:
    """A rectangular detector off its centre, tilted: a small ball is where the camera projects it."""
    image = np.zeros((60, 60, 60), np.float32)
    image[38:41, 20:23, 44:47] = 1.0
    ct = sitk.GetImageFromArray(image)
    ct.SetSpacing((4.0, 4.0, 4.0))
    ct.SetOrigin((-118.0, -118.0, -118.0))
    sitk.WriteImage(ct, str(tmp_path / "ct.mha"))
    ball = -118 + 4 * np.array([45.0, 21, 39])
    command = [
        str(PLASTIMATCH), "drr", "--nrm", "0.5 -0.8 0.2", "--vup", "0 0 1", "--sad", "1000", "--sid", "1500",
        "--dim", "120 90", "--detector-size", "480 360", "--image-center", "70 30", "--isocenter", "3 4 5",
        "--hu-conversion", "none", "--output-format", "pfm", "--output", "g", "ct.mha",
    ]  # fmt: skip
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    header, size, _, pixels = (tmp_path / "g0000.pfm").read_bytes().split(b"\n", 3)
    columns, rows = (int(n) for n in size.split())
    seen = np.frombuffer(pixels, "<f4", rows * columns).reshape(rows, columns)
    centre = np.array([(np.indices(seen.shape)[k] * seen).sum() / seen.sum() for k in (0, 1)])
    camera = from_plastimatch((tmp_path / "g0000.txt").read_text(), rows, columns)
    assert header == b"Pf"
    assert camera.project(ball) == pytest.approx(centre, abs=0.1)
    assert camera.project([3.0, 4, 5]) == pytest.approx([30, 70])


def test_what_has_no_matrix() -> None:
    with pytest.raises(ValueError, match="one source"):
        to_opencv(Geometry.preset("parallel", 8).camera(View(0.0), (0, 0, 0)))
    with pytest.raises(ValueError, match="not at infinity"):
        from_opencv(np.diag([1.0, 1, 1, 1])[:3] * [1, 1, 0, 1], 4, 4, 1000)
    with pytest.raises(ValueError, match="16 numbers"):
        from_plastimatch("1 2 3", 4, 4)
    assert Beam("slot").moves == (1, 0)
