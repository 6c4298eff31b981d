"""The residual U-Net's stages, and what one of another resolution can take over."""

import pytest
import torch

from raylift.networks.residual_unet import ResidualUNet


@pytest.mark.parametrize(("voxels", "coarsest", "stages"), [(32, 4, 3), (64, 4, 4), (96, 6, 4), (128, 4, 5)])
def test_stages_end_at_an_edge_of_four_to_seven(voxels: int, coarsest: int, stages: int) -> None:
    network = ResidualUNet(2, 1, 4, voxels).eval()
    edges = []
    network.bottom.register_forward_hook(lambda module, given, made: edges.append(made.shape[2]))
    with torch.inference_mode():
        assert network(torch.rand(1, 2, voxels, voxels, voxels)).shape == (1, 1, voxels, voxels, voxels)
    assert edges == [coarsest]
    assert len(network.encoder) == stages


def test_twice_the_voxels_add_one_stage() -> None:
    small, large = (ResidualUNet(3, 2, 8, voxels).state_dict() for voxels in (64, 128))
    assert set(small) <= set(large)
    differs = {name for name in small if small[name].shape != large[name].shape}
    assert differs == {"down.3.weight", "up.weight"}  # what the views enter by, and the way to full resolution


def test_every_voxel_sees_the_whole_volume() -> None:
    torch.manual_seed(0)
    network = ResidualUNet(1, 1, 4, 64)
    volume = torch.rand(1, 1, 64, 64, 64, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(volume)[0, 0, 5, 40, 20], volume)
    assert gradient[0, 0, 60, 3, 60].abs() > 0


@pytest.mark.parametrize("voxels", [7, 72])
def test_edges_that_cannot_be_halved_are_refused(voxels: int) -> None:
    with pytest.raises(ValueError, match=f"{voxels} voxels"):
        ResidualUNet(1, 1, 4, voxels)
