"""The fine residual U-Net begins as what the coarse one has learned, and can add to it."""

import pytest
import torch
import torch.nn.functional as F

from raylift.networks.fine_residual_unet import FineResidualUNet
from raylift.networks.residual_unet import ResidualUNet


def test_it_begins_with_the_coarse_networks_volume() -> None:
    torch.manual_seed(0)
    coarse, fine = ResidualUNet(3, 2, 8, 32).eval(), FineResidualUNet(3, 2, 8, 64).eval()
    learned = coarse.state_dict()
    assert all(fine.state_dict()[name].shape == tensor.shape for name, tensor in learned.items())
    fine.load_state_dict(fine.state_dict() | learned)
    volume = torch.rand(1, 3, 32, 32, 32)
    with torch.inference_mode():
        found = fine(F.interpolate(volume, scale_factor=2, mode="nearest"))
        expected = F.interpolate(coarse(volume), scale_factor=2, mode="trilinear", align_corners=False)
    torch.testing.assert_close(found, expected)


def test_every_part_learns() -> None:
    torch.manual_seed(0)
    network = FineResidualUNet(2, 1, 8, 32)
    for _ in range(2):  # its last convolution is nothing at first, and what is before it does not learn yet
        loss = (network(torch.rand(1, 2, 32, 32, 32)) - torch.rand(1, 1, 32, 32, 32)).square().mean()
        network.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter -= 0.1 * parameter.grad
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


@pytest.mark.parametrize("voxels", [33, 36])
def test_edges_that_cannot_be_halved_are_refused(voxels: int) -> None:
    with pytest.raises(ValueError, match="voxels"):
        FineResidualUNet(1, 1, 4, voxels)
