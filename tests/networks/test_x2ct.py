"""X2CT-GAN's generator: sizes, frames, and that it can learn."""

import pytest
import torch
from one_pair import share_left

from raylift.networks.patch_discriminator import PatchDiscriminator
from raylift.networks.x2ct import X2CT


@pytest.mark.parametrize(
    ("axes", "batch", "voxels"), [((1, 2), 2, 32), ((2,), 1, 32), ((1, 2, 1), 1, 32), ((1, 2), 1, 64)]
)
def test_shapes(axes: tuple[int, ...], batch: int, voxels: int) -> None:
    network = X2CT(axes, voxels, 4).train()
    assert network(torch.rand(batch, len(axes), voxels, voxels)).shape == (batch, 1, voxels, voxels, voxels)


def test_as_many_parameters_as_the_paper() -> None:
    # DP-GAN+B (Xing et al. 2024) saves 31.924 million parameters, 44.17 %, of generator and discriminator.
    with torch.device("meta"):
        networks = [X2CT((1, 2), 128, 16), PatchDiscriminator(3)]
    assert sum(p.numel() for n in networks for p in n.parameters()) == pytest.approx(31.924e6 / 0.4417, rel=0.05)


@pytest.mark.parametrize("axes", [(1, 2), (2, 1)])
def test_a_voxel_depends_most_on_the_pixels_that_see_it(axes: tuple[int, int]) -> None:
    z, y, x = 20, 5, 26
    sensitivity = torch.zeros(2, 32, 32)
    for seed in range(6):  # random weights are noisy, each in its own way
        torch.manual_seed(seed)
        images = torch.rand(1, 2, 32, 32, requires_grad=True)
        (gradient,) = torch.autograd.grad(X2CT(axes, 32, 4)(images)[0, 0, z, y, x], images)
        sensitivity += gradient[0].square() / gradient[0].square().sum((1, 2), keepdim=True)

    for image, axis in zip(sensitivity, axes, strict=True):

        def around(row: int, column: int, image: torch.Tensor = image) -> float:
            return float(image[row - 3 : row + 4, column - 3 : column + 4].sum())

        column, other = (x, y) if axis == 1 else (y, x)
        # Not the other view's column, nor the row upside down, nor rows for columns.
        for wrong in ((z, other), (31 - z, column), (column, z)):
            assert around(z, column) > 1.5 * around(*wrong)


def test_views_and_axes_change_places_together() -> None:
    torch.manual_seed(0)
    network, exchanged = X2CT((1, 2), 16, 2), X2CT((2, 1), 16, 2)
    exchanged.load_state_dict(network.state_dict())
    for k in (0, 1):
        exchanged.branches[k].load_state_dict(network.branches[1 - k].state_dict())
    images = torch.rand(1, 2, 16, 16)
    torch.testing.assert_close(exchanged(images.flip(1)), network(images), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(network(images.flip(1)), network(images), rtol=1e-2)


def test_all_of_it_is_trained() -> None:
    torch.manual_seed(0)
    network = X2CT((1, 2), 16, 2)
    network(torch.rand(1, 2, 16, 16)).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize("images", [(1, 1, 16, 16), (1, 3, 16, 16)])
def test_as_many_images_as_views(images: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="zip"):
        X2CT((1, 2), 16, 2)(torch.rand(images))


def test_learns_one_pair() -> None:
    torch.manual_seed(0)
    assert share_left(X2CT((1, 2), 16, 4), 16, steps=40, rate=5e-3) < 1 / 4
