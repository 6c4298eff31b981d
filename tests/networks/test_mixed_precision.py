"""The bfloat16 gradients of every convolution in the 2D→3D networks are those of float32.

A whole network cannot be compared: rounding its weights to bfloat16 turns the gradient of the deepest layers by 40°
in float32 already. So each layer is taken alone, with the input it has in the network.
"""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from raylift.networks.autoencoder import Autoencoder
from raylift.networks.ccx import CCXRayNet
from raylift.networks.patch_discriminator import PatchDiscriminator
from raylift.networks.x2ct import X2CT

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "autoencoder": (lambda: Autoencoder((1, 2), 32, 4), (2, 32, 32)),
    "x2ct": (lambda: X2CT((1, 2), 32, 4), (2, 32, 32)),
    "ccx": (lambda: CCXRayNet((1, 2), 32, 4), (2, 32, 32)),
    "patch_discriminator": (lambda: PatchDiscriminator(3, 8), (3, 32, 32, 32)),
}


def gradients(layer: nn.Module, given: Tensor, reduced: bool) -> tuple[Tensor, Tensor]:
    """Of the layer's weights and its input."""
    layer.zero_grad()
    given = given.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
        out = layer(given)
    torch.manual_seed(1)
    out.backward(torch.randn(out.shape).bfloat16().to(out.dtype))
    assert given.grad is not None
    return layer.weight.grad.clone(), given.grad


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_of_each_layer(name: str, batch: int) -> None:
    torch.manual_seed(0)
    build, shape = NETWORKS[name]
    network = build()
    met: dict[tuple[object, ...], tuple[str, nn.Module, Tensor]] = {}

    def note(name: str, layer: nn.Module, given: Tensor) -> None:
        if torch.is_autocast_enabled("cpu"):
            met.setdefault((type(layer), layer.weight.shape, given.shape), (name, layer, given.detach()))

    for path, layer in network.named_modules():
        if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
            layer.register_forward_hook(lambda layer, given, _out, path=path: note(path, layer, given[0]))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        network(torch.rand(batch, *shape))

    assert len(met) >= 4
    for path, layer, given in met.values():
        layer, given = deepcopy(layer), given.bfloat16().float()
        with torch.no_grad():
            layer.weight.copy_(layer.weight.bfloat16().float())
        for expected, found in zip(gradients(layer, given, False), gradients(layer, given, True), strict=True):
            assert float((found - expected).norm() / expected.norm()) < 0.02, path
