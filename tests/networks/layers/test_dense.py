"""The blocks of X2CT-GAN and CCX-rayNet."""

import pytest
import torch

from raylift.networks.layers.dense import (
    Average,
    Branch,
    ConnectionA,
    ConnectionB,
    Decoder,
    DenseBlock,
    Encoder,
    Plan,
)


def test_levels_of_the_published_size_and_of_smaller_ones() -> None:
    assert Plan(128, 16).sizes == [128, 64, 32, 16, 8, 4]
    assert Plan(64, 16).sizes == [64, 32, 16, 8, 4, 4]
    assert Plan(32, 16).sizes == [32, 16, 8, 4, 4, 4]


@pytest.mark.parametrize(("voxels", "feature_size"), [(48, 8), (2, 8), (64, 7), (64, 0)])
def test_other_sizes_are_refused(voxels: int, feature_size: int) -> None:
    with pytest.raises(ValueError, match=str(feature_size if voxels == 64 else voxels)):
        Plan(voxels, feature_size)


def test_a_dense_block_keeps_all_it_was_given() -> None:
    block, maps = DenseBlock(4, 2, 3), torch.rand(1, 4, 8, 8)
    out = block(maps)
    assert out.shape == (1, 4 + 3 * 2, 8, 8)
    assert torch.equal(out[:, :4], maps)
    # The last layer has seen all before: 4 + 2 + 2 channels.
    assert block.layers[-1].conv.in_channels == 8


def test_encoder_and_decoder_mirror_each_other() -> None:
    plan = Plan(32, 4)
    maps = Encoder(plan)(torch.rand(1, 1, 32, 32), [torch.nn.Identity()] * 6)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (4, 32, 32),
        (8, 16, 16),
        (16, 8, 8),
        (32, 4, 4),
        (64, 4, 4),
        (32, 4, 4),
    ]
    skips = [torch.rand(1, width, *(size,) * 3) for width, size in zip((4, 8, 16, 32, 32), plan.sizes, strict=False)]
    deepest = ConnectionA(plan)(maps[-1])
    assert deepest.shape == (1, 32, 4, 4, 4)
    levels = Decoder(plan)(deepest, skips)
    assert [level.shape for level in levels[:-1]] == [skip.shape for skip in skips]
    assert levels[-1] is deepest


def test_what_an_encoder_modulates_goes_on() -> None:
    encoder = Encoder(Plan(32, 4)).eval()
    image = torch.rand(1, 1, 32, 32)
    keep = [torch.nn.Identity()] * 6
    plain = encoder(image, keep)
    modulated = encoder(image, [*keep[:3], torch.neg, *keep[4:]])
    assert all(torch.equal(a, b) for a, b in zip(plain[:3], modulated[:3], strict=True))
    assert torch.equal(modulated[3], -plain[3])
    assert not torch.allclose(modulated[4], plain[4])


def test_connection_a_is_fully_connected() -> None:
    # Without rectification every voxel depends on every pixel.
    layer = ConnectionA(Plan(32, 2)).layer
    assert layer.weight.shape == (16 * 4**3, 16 * 4**2)


def test_connection_b_repeats_along_the_depth() -> None:
    torch.manual_seed(0)
    out = ConnectionB(3, 4, 8)(torch.rand(1, 3, 8, 8))
    assert out.shape == (1, 4, 8, 8, 8)
    # But for the border, where the 3D convolution sees padding.
    inside = out[:, :, :, 1:-1]
    torch.testing.assert_close(inside, inside[:, :, :, :1].expand_as(inside))
    assert inside.std(2).mean() > 0.1
    assert inside.std(4).mean() > 0.1


def test_average() -> None:
    a, b = torch.rand(2, 1, 4, 4, 4).split(1)
    torch.testing.assert_close(Average()([a, b]), (a + b) / 2)
    assert torch.equal(Average()([a]), a)


def test_a_lateral_branch_is_a_frontal_one_turned() -> None:
    torch.manual_seed(0)
    frontal, lateral = Branch(1, Plan(16, 2)), Branch(2, Plan(16, 2))
    lateral.load_state_dict(frontal.state_dict())
    image = torch.rand(1, 1, 16, 16)
    for a, b in zip(frontal(image), lateral(image), strict=True):
        assert not torch.allclose(a, b)
        torch.testing.assert_close(a.mT, b)  # exchanges y and x
