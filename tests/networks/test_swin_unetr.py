"""The mapping network is MONAI's Swin UNETR, with one block kept out of mixed precision."""

import pytest
import torch
from monai.networks.nets import SwinUNETR as MonaiSwinUNETR
from torch import Tensor

from raylift.networks.swin_unetr import SwinUNETR


def pair(window_size: int = 4) -> tuple[SwinUNETR, MonaiSwinUNETR]:
    """Ours and MONAI's with the same weights, which differ from any initialisation of ours."""
    torch.manual_seed(5)
    theirs = MonaiSwinUNETR(in_channels=2, out_channels=1, feature_size=12, window_size=window_size)
    ours = SwinUNETR(2, 1, 12, window_size)
    ours.load_state_dict({f"net.{name}": tensor for name, tensor in theirs.state_dict().items()}, strict=True)
    return ours, theirs


@pytest.mark.parametrize("in_channels", [1, 2, 4])
@pytest.mark.parametrize("window_size", [4, 7])
def test_shapes(in_channels: int, window_size: int) -> None:
    network = SwinUNETR(in_channels, 1, 12, window_size)
    with torch.inference_mode():
        assert network(torch.rand(2, in_channels, 64, 32, 32)).shape == (2, 1, 64, 32, 32)


@pytest.mark.parametrize("window_size", [4, 7])
def test_equals_monai_with_the_same_weights(window_size: int) -> None:
    ours, theirs = pair(window_size)
    volume = torch.rand(1, 2, 64, 32, 32)
    with torch.inference_mode():
        expected = theirs.eval()(volume)
        assert expected.std() > 0.01
        torch.testing.assert_close(ours.eval()(volume), expected, rtol=1e-5, atol=1e-5)


def test_state_has_monais_names() -> None:
    ours, theirs = pair()
    assert set(ours.state_dict()) == {f"net.{name}" for name in theirs.state_dict()}


def test_deepest_block_stays_in_float32_under_autocast() -> None:
    network, _ = pair()
    seen: dict[str, set[torch.dtype]] = {"encoder10": set(), "encoder4": set()}

    def note(name: str) -> None:
        for part in getattr(network.net, name).modules():
            if isinstance(part, torch.nn.Conv3d):
                part.register_forward_hook(lambda _module, _given, out: seen[name].add(out.dtype))

    for name in seen:
        note(name)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        network(torch.rand(1, 2, 64, 64, 64))
    # The other block shows that autocast was on.
    assert seen == {"encoder10": {torch.float32}, "encoder4": {torch.bfloat16}}


def test_bfloat16_gradients_are_near_those_of_float32() -> None:
    network, _ = pair()
    generator = torch.Generator().manual_seed(0)
    volume, target = (torch.rand(1, c, 64, 64, 64, generator=generator) for c in (2, 1))

    def gradients(precise: bool) -> dict[str, Tensor]:
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            out = network(volume)
        (out.float() - target).square().mean().backward()
        return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}

    expected, found = gradients(True), gradients(False)
    assert all(gradient.isfinite().all() for gradient in found.values())

    def cosine(prefix: str) -> float:
        a, b = (torch.cat([g[n].flatten() for n in g if n.startswith(prefix)]) for g in (expected, found))
        assert a.norm() > 0
        return float(torch.nn.functional.cosine_similarity(a, b, 0))

    # bfloat16 has 8 bits of mantissa; a wrong gradient has a cosine near 0 or a length that is off by orders.
    assert cosine("") > 0.95
    assert cosine("net.encoder10") > 0.9
    lengths = [torch.cat([t.flatten() for t in g.values()]).norm() for g in (expected, found)]
    assert lengths[1] == pytest.approx(float(lengths[0]), rel=0.2)
