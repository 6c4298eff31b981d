"""The 2D-3D autoencoder: one latent, and nothing past it."""

import pytest
import torch
from one_pair import share_left

from raylift.networks.autoencoder import Autoencoder


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize(("axes", "batch", "voxels"), [((1, 2), 2, 32), ((2,), 1, 32), ((1, 2), 1, 64)])
def test_shapes(axes: tuple[int, ...], batch: int, voxels: int, normalised: bool) -> None:
    network = Autoencoder(axes, voxels, 4, normalised).train()
    images = torch.rand(batch, len(axes), voxels, voxels)
    assert network(images).shape == (batch, 1, voxels, voxels, voxels)
    assert network.latent(images).shape == (batch, 4 * voxels // 4, 4, 4, 4)


def test_widths_stop_at_sixteen_times() -> None:
    assert Autoencoder((1,), 128, 2).latent(torch.rand(1, 1, 128, 128)).shape == (1, 32, 4, 4, 4)


@pytest.mark.parametrize("voxels", [4, 48])
def test_other_edges_are_refused(voxels: int) -> None:
    with pytest.raises(ValueError, match=str(voxels)):
        Autoencoder((1, 2), voxels, 4)


def test_latents_are_expanded_into_the_volumes_frame_and_added() -> None:
    torch.manual_seed(0)
    network, images = Autoencoder((1, 2), 32, 4), torch.rand(1, 2, 32, 32)
    latent = network.latent(images)
    frontal, lateral = (encoder(image) for encoder, image in zip(network.encoders, images.split(1, 1), strict=True))
    for z, y, x in ((0, 1, 3), (2, 3, 0), (1, 0, 2)):
        torch.testing.assert_close(latent[0, :, z, y, x], frontal[0, :, z, x] + lateral[0, :, z, y])


def test_normalised_latent_has_length_1() -> None:
    torch.manual_seed(0)
    plain, normalised = Autoencoder((1, 2), 32, 4), Autoencoder((1, 2), 32, 4, normalised=True)
    normalised.load_state_dict(plain.state_dict())
    images = torch.rand(2, 2, 32, 32)
    before, after = plain.latent(images), normalised.latent(images)
    lengths = before.square().sum(1, keepdim=True).sqrt()
    assert (lengths - 1).abs().min() > 1e-3
    torch.testing.assert_close(after.square().sum(1), torch.ones(2, 4, 4, 4))
    torch.testing.assert_close(after * lengths, before)


def test_there_are_no_skips() -> None:
    network, images = Autoencoder((1, 2), 32, 4), torch.rand(1, 2, 32, 32)
    assert torch.equal(network(images), network.decoder(network.latent(images)))


@pytest.mark.parametrize("normalised", [False, True])
def test_learns_one_pair(normalised: bool) -> None:
    torch.manual_seed(0)
    assert share_left(Autoencoder((1, 2), 16, 8, normalised), 16, steps=60, rate=5e-3) < 1 / 3
