"""Compiled interpolation beside SciPy's."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from raylift.data.warp_kernels import at_edge
from raylift.numerics.interpolation import interpolate

SHAPE = (6, 7, 9)


def volume_of(kind: type) -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 3000, SHAPE).astype(kind)


@pytest.mark.parametrize("kind", [np.int16, np.float32])
@pytest.mark.parametrize("count", [1, 40])
def test_inside(kind: type, count: int) -> None:
    volume = volume_of(kind)
    zyx = np.random.default_rng(1).uniform(0, 1, (3, 40)) * (np.array(SHAPE)[:, None] - 1.001)
    zyx[:, 0] = np.array(SHAPE) - 1 - 1e-4  # almost the last voxels' centres
    z, y, x = zyx.astype(np.float32)
    out = np.full(40, -7, np.float32)
    interpolate(volume, x, y, z, count, np.empty(40, np.int64), np.empty((4, 80), kind), out)
    expected = map_coordinates(volume.astype(np.float64), zyx, order=1)
    assert np.allclose(out[:count], expected[:count], atol=0.01)
    assert (out[count:] == -7).all()


@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_at_edge(kind: type) -> None:
    volume = volume_of(kind)
    zyx = np.random.default_rng(2).uniform(0, 1, (3, 100)) * (np.array(SHAPE)[:, None] + 1) - 1
    found = [at_edge(volume, x, y, z) for z, y, x in zyx.T]
    # Whatever is missing counts as −1000.
    expected = map_coordinates(np.pad(volume + 1000.0, 1), zyx + 1, order=1)
    assert np.allclose(found, expected, atol=0.01)
