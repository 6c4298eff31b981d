"""Any number of views in a fixed number of channels: nothing is lost that the views' directions can tell."""

import math

import pytest
import torch
from torch import Tensor

from raylift.geometry import View
from raylift.lifting.view_harmonics import CHANNELS, angular_weights, harmonic_channels, harmonics


def lifted(count: int, seed: int = 0) -> Tensor:
    return torch.rand(2, count, 3, 4, 5, generator=torch.Generator().manual_seed(seed))


def views(*angles: float) -> tuple[View, ...]:
    return tuple(View(angle) for angle in angles)


def test_a_frontal_and_a_lateral_view_are_sum_and_difference() -> None:
    given = lifted(2)
    mean, first = harmonics(given, views(0, 90)).unbind(1)[:2]
    assert torch.allclose(mean + first, given[:, 0], atol=1e-6)
    assert torch.allclose(mean - first, given[:, 1], atol=1e-6)


def test_four_directions_are_told_from_each_other() -> None:
    angles = (0.0, 45.0, 90.0, 135.0)
    given = lifted(4)
    waves = [[1.0] * 4]
    for m in (1, 2):
        waves += [[wave(2 * m * math.radians(a)) for a in angles] for wave in (math.cos, math.sin)]
    again = torch.linalg.lstsq(torch.tensor(waves) / 4, harmonics(given, views(*angles)).flatten(2).mT[0].T).solution
    assert torch.allclose(again, given[0].flatten(1), atol=1e-5)


def test_the_order_of_the_views_does_not_matter() -> None:
    given, angles = lifted(3), (10.0, 200.0, 95.0)
    seen = torch.rand(3, 3, 4, 5) > 0.3
    turned = [2, 0, 1]
    expected = harmonic_channels(given * seen, seen, views(*angles))
    found = harmonic_channels((given * seen)[:, turned], seen[turned], views(*(angles[k] for k in turned)))
    assert expected.shape == (2, CHANNELS, 3, 4, 5)
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("angle", [0.0, 35.0, 250.0])
def test_the_opposite_side_counts_alike(angle: float) -> None:
    given = lifted(1)
    assert torch.allclose(harmonics(given, views(angle)), harmonics(given, views((angle + 180) % 360)), atol=1e-6)


def test_a_view_twice_counts_once() -> None:
    given = lifted(1)
    assert torch.allclose(harmonics(given.repeat(1, 2, 1, 1, 1), views(30, 30)), harmonics(given, views(30)), atol=1e-6)


@pytest.mark.parametrize(
    ("angles", "degrees"),
    [
        ((77,), [180]),
        ((0, 90), [90, 90]),
        ((0, 90, 45), [67.5, 67.5, 45]),  # halfway to the next view on each side
        ((350, 20, 200, 100), [50, 27.5, 27.5, 75]),  # 20 and 200 share the 55 degrees around them
    ],
)
def test_a_view_stands_for_what_is_nearest_to_it(angles: tuple[float, ...], degrees: list[float]) -> None:
    assert angular_weights(views(*angles)).tolist() == pytest.approx([each / 180 for each in degrees])


def test_a_direction_that_is_shown_twice_weighs_no_more() -> None:
    given = lifted(3)
    twice = torch.cat([given, given[:, :1]], 1)
    assert torch.allclose(harmonics(twice, views(0, 90, 45, 180)), harmonics(given, views(0, 90, 45)), atol=1e-6)


def test_what_misses_the_detector_says_nothing_of_air() -> None:
    given = torch.tensor([0.0, 3.0, 5.0]).view(1, 3, 1, 1, 1)
    seen = torch.tensor([False, True, True]).view(3, 1, 1, 1)
    least, share = harmonic_channels(given, seen, views(0, 45, 90))[0, -2:].flatten()
    assert (float(least), float(share)) == pytest.approx((3.0, 2 / 3))
    least, share = harmonic_channels(given * 0, seen & False, views(0, 45, 90))[0, -2:].flatten()
    assert (float(least), float(share)) == (0.0, 0.0)
