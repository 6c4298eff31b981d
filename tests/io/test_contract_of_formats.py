"""What holds for every volume format."""

from pathlib import Path

import numpy as np
import pytest

from raylift.errors import BadInput
from raylift.geometry import VolumeGrid
from raylift.images import Volume
from raylift.io import read_volume, write_volume
from raylift.io.formats import FORMATS, media_type_of, readable, writable

WRITTEN = [ending for ending, one in FORMATS.own.items() if one.writes]


def volume() -> Volume:
    values = np.random.default_rng(0).integers(-1000, 2000, (6, 7, 8)).astype(np.int16)
    return Volume(values, VolumeGrid(values.shape, (1.5, 2.0, 2.5), (-30.0, 12.5, 700.0)))


@pytest.mark.parametrize("ending", WRITTEN)
def test_what_is_written_is_read(tmp_path: Path, ending: str) -> None:
    path = write_volume(volume(), tmp_path / f"volume.{ending}")
    again = read_volume(path)
    assert (again.array == volume().array).all()
    assert again.grid.shape == volume().grid.shape
    for name in ("spacing", "origin", "direction"):
        assert getattr(again.grid, name) == pytest.approx(getattr(volume().grid, name), abs=1e-5)


@pytest.mark.parametrize("ending", FORMATS.own)
def test_what_is_no_volume_is_one_line(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"volume.{ending}"
    path.write_bytes(b"not a volume")
    with pytest.raises(BadInput) as problem:
        read_volume(path)
    assert str(path) in str(problem.value) or path.stem in str(problem.value)
    assert "\n" not in str(problem.value)


def test_endings_and_media_types() -> None:
    assert set(writable()) <= set(readable())
    assert {f".{ending}" for ending in WRITTEN} <= set(writable())
    assert media_type_of("volume.nii.gz") == "application/gzip"
    with pytest.raises(KeyError):
        media_type_of("volume.txt")
