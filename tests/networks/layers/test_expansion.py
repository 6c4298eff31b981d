"""Where the pixels of a view lie in the volume."""

import pytest
import torch

from raylift.networks.layers.expansion import expand, turn


def test_a_frontal_image_is_repeated_along_y_and_a_lateral_one_along_x() -> None:
    maps = torch.zeros(1, 1, 4, 5)
    maps[0, 0, 1, 3] = 7
    frontal, lateral = expand(maps, 1, 6), expand(maps, 2, 6)
    assert frontal.shape == (1, 1, 4, 6, 5)
    assert lateral.shape == (1, 1, 4, 5, 6)
    # (z, y, x): the row is z in both; the column is x of a frontal image and y of a lateral one.
    assert frontal[0, 0].nonzero().tolist() == [[1, y, 3] for y in range(6)]
    assert lateral[0, 0].nonzero().tolist() == [[1, 3, x] for x in range(6)]


def test_turning() -> None:
    volume = torch.zeros(1, 1, 4, 5, 6)
    volume[0, 0, 1, 2, 3] = 7  # z 1, depth 2, column 3
    assert turn(volume, 1)[0, 0].nonzero().tolist() == [[1, 2, 3]]  # y is the depth
    assert turn(volume, 2)[0, 0].nonzero().tolist() == [[1, 3, 2]]  # x is the depth
    assert torch.equal(turn(turn(volume, 2), 2), volume)


def test_both_agree_on_the_frame() -> None:
    maps = torch.rand(2, 3, 4, 5)
    for axis in (1, 2):
        assert torch.equal(turn(expand(maps, 1, 6), axis), expand(maps, axis, 6))


@pytest.mark.parametrize("axis", [0, 3])
def test_no_other_axis(axis: int) -> None:
    with pytest.raises(ValueError, match="axis 1"):
        expand(torch.rand(1, 1, 4, 4), axis, 4)
    with pytest.raises(ValueError, match="axis 1"):
        turn(torch.rand(1, 1, 4, 4, 4), axis)
