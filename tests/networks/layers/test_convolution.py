"""One volume cut into a batch of two is convolved as it would be whole."""

import pytest
import torch

from raylift.networks.layers.convolution import SMALL, Conv3d


@pytest.mark.parametrize("edge", [1, 3])
@pytest.mark.parametrize(
    ("batch", "depth"),
    [(1, 4), (1, 16), (1, 5), (1, 2), (2, 8)],  # the last three are not cut
)
def test_is_pytorchs(edge: int, batch: int, depth: int) -> None:
    torch.manual_seed(0)
    ours = Conv3d(3, 5, edge, padding=edge // 2, bias=False)
    maps = torch.rand(batch, 3, depth, 6, 7).contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    assert maps[0, :, :, :, 0].numel() <= SMALL
    exact = maps.detach().double().requires_grad_()
    found = ours(maps)
    expected = torch.nn.functional.conv3d(exact, ours.weight.double(), padding=edge // 2)
    assert found.shape == expected.shape
    assert torch.allclose(found.double(), expected, atol=1e-5)
    weight = torch.rand(expected.shape)
    slopes = torch.autograd.grad((found * weight).sum(), (maps, ours.weight))
    wanted = torch.autograd.grad((expected * weight).sum(), (exact, ours.weight))
    assert all(torch.allclose(a, b.to(a), atol=1e-4) for a, b in zip(slopes, wanted, strict=True))
