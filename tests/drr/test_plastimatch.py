"""Our projector and plastimatch's, two programs that share no code, see the same patient from the same side."""

import numpy as np
import pytest

from raylift.data.thorax import find_thorax
from raylift.drr import plastimatch
from raylift.drr.registry import load_projector
from raylift.errors import WrongUsage
from raylift.geometry import IDENTITY, Geometry, View, VolumeGrid
from raylift.images.volume import Volume

ANGLES = (0.0, 45.0, 90.0, 180.0)
UNIT = Geometry.preset("chest-stand", 64)


def compare(volume: Volume, unit: Geometry, views: list[View], isocentre: tuple[float, float, float]) -> None:
    pairs = zip(
        *(load_projector(name)(volume, unit, views, isocentre) for name in ("torch", "plastimatch")), strict=True
    )
    for view, (ours, theirs) in zip(views, pairs, strict=True):
        assert ours.shape == theirs.shape
        assert theirs.mean() > 0.1
        assert np.abs(ours - theirs).mean() / theirs.mean() <= 0.02, view
        agreement = np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]
        assert agreement >= 0.999, view
        for flipped in (theirs[:, ::-1], theirs[::-1]):
            assert np.corrcoef(ours.ravel(), flipped.ravel())[0, 1] < agreement - 0.01, view


def test_engines_agree(scan: Volume) -> None:
    compare(scan, UNIT, [View(angle) for angle in ANGLES], find_thorax(scan).centre)


def test_engines_agree_off_centre_and_close_up(phantom: Volume) -> None:
    """A short unit, an isocentre away from the grid's middle, and an image oriented for reading."""
    isocentre = tuple(np.add(find_thorax(phantom).centre, (25, -15, 40)).tolist())
    compare(phantom, Geometry.preset("x2ct", 48), [View(30.0), View.parse("pa"), View.parse("lateral-left")], isocentre)


def test_engines_agree_on_a_turned_anisotropic_grid() -> None:
    """A body without symmetry in a grid of 1.5 × 2 × 2.5 mm turned by 20° about z."""
    turn = np.radians(20)
    cosines = (np.cos(turn), -np.sin(turn), 0, np.sin(turn), np.cos(turn), 0, 0, 0, 1)
    grid = VolumeGrid((80, 100, 120), (1.5, 2.0, 2.5), (-30.0, -150.0, -90.0), cosines)
    assert grid.direction != IDENTITY
    middle = np.asarray(grid.centre)
    hu = np.full(grid.shape, -1000.0)
    for at, radius in (((0, 0, 0), 60), ((55, -35, 40), 30), ((-45, 50, -20), 26)):
        distance = np.linalg.norm(grid.points() - middle - at, axis=-1)
        hu = np.maximum(hu, 1000 * np.clip((radius - distance) / 20 + 0.5, 0, 1) - 1000)
    compare(Volume(hu.astype(np.float32), grid), UNIT, [View(0.0), View(110.0)], tuple(middle.tolist()))


def test_pa_is_the_mirrored_half_turn(phantom: Volume) -> None:
    isocentre = find_thorax(phantom).centre
    behind, pa = load_projector("plastimatch")(phantom, UNIT, [View(180.0), View.parse("pa")], isocentre)
    assert np.abs(pa - behind[:, ::-1]).max() < 1e-3 * behind.max()


def test_without_the_program(monkeypatch: pytest.MonkeyPatch, phantom: Volume) -> None:
    monkeypatch.setattr(plastimatch.shutil, "which", lambda *args, **options: None)
    assert plastimatch.program() is None
    with pytest.raises(WrongUsage, match="pip install plastimatch"):
        plastimatch.project_volume(phantom, UNIT, [View(0.0)], phantom.grid.centre)


def test_parallel_rays_are_refused(phantom: Volume) -> None:
    with pytest.raises(WrongUsage, match="cone beams only"):
        plastimatch.project_volume(phantom, Geometry.preset("parallel", 16), [View(0.0)], phantom.grid.centre)


def test_a_program_that_fails(monkeypatch: pytest.MonkeyPatch, phantom: Volume) -> None:
    monkeypatch.setattr(plastimatch, "program", lambda: "/bin/false")
    with pytest.raises(RuntimeError, match="plastimatch drr failed"):
        plastimatch.project_volume(phantom, UNIT, [View(0.0)], phantom.grid.centre)
