"""The mapping network against MONAI's Swin UNETR with the same weights: what comes out, and every gradient."""

import pytest
import torch
from monai.networks.nets import SwinUNETR as MonaiSwinUNETR
from torch import Tensor, nn

from raylift.networks.layers.per_sample import PerSampleParallel
from raylift.networks.swin_unetr import SwinUNETR


def pair(
    window_size: int = 4, feature_size: int = 12, kind: torch.dtype = torch.float32
) -> tuple[SwinUNETR, nn.Module]:
    """Ours and MONAI's with the same weights, which differ from any initialisation of ours."""
    torch.manual_seed(5)
    theirs = MonaiSwinUNETR(in_channels=2, out_channels=1, feature_size=feature_size, window_size=window_size)
    ours = SwinUNETR(2, 1, feature_size, window_size)
    ours.load_state_dict(theirs.state_dict())
    return ours.to(kind), theirs.to(kind)


def outcome(network: nn.Module, volume: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """What a network makes of a volume, and the gradients of a loss without symmetry."""
    network.zero_grad()
    out = network(volume)
    (out * torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)).mean().backward()
    return out.detach(), {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("in_channels", [1, 2, 4])
@pytest.mark.parametrize("window_size", [4, 7])
def test_shapes(in_channels: int, window_size: int) -> None:
    network = SwinUNETR(in_channels, 1, 12, window_size)
    with torch.inference_mode():
        assert network(torch.rand(2, in_channels, 64, 32, 32)).shape == (2, 1, 64, 32, 32)


@pytest.mark.parametrize(
    ("window_size", "feature_size", "shape"),
    [(4, 12, (64, 32, 32)), (7, 12, (64, 32, 32)), (8, 12, (32, 32, 64))],
)
def test_equals_monai(window_size: int, feature_size: int, shape: tuple[int, ...]) -> None:
    ours, theirs = pair(window_size, feature_size, torch.float64)
    volume = torch.rand(1, 2, *shape, dtype=torch.float64)
    (found, slopes), (expected, expected_slopes) = outcome(ours, volume), outcome(theirs, volume)
    assert expected.std() > 0.01
    assert (found - expected).abs().max() < 1e-12
    assert slopes.keys() == expected_slopes.keys()
    for name, slope in slopes.items():
        assert (slope - expected_slopes[name]).abs().max() < 1e-11, name


@pytest.mark.parametrize("window_size", [4, 7])
def test_equals_monai_in_single_precision(window_size: int) -> None:
    ours, theirs = pair(window_size)
    volume = torch.rand(1, 2, 64, 64, 64)
    (found, slopes), (expected, expected_slopes) = outcome(ours, volume), outcome(theirs, volume)
    assert (found - expected).abs().max() < 1e-5
    assert max(float((slopes[name] - expected_slopes[name]).abs().max()) for name in slopes) < 1e-4


def test_feature_sizes_that_heads_cannot_share() -> None:
    with pytest.raises(ValueError, match="16 is not a multiple of 12"):
        SwinUNETR(2, 1, 16, 4)


def test_state_is_monais() -> None:
    ours, theirs = pair()
    theirs.load_state_dict(ours.state_dict())
    assert {n: t.shape for n, t in ours.state_dict().items()} == {n: t.shape for n, t in theirs.state_dict().items()}


@pytest.mark.parametrize("mixed", [False, True])
def test_checkpointing_changes_nothing(mixed: bool) -> None:
    ours, _ = pair()
    again = SwinUNETR(2, 1, 12, 4, checkpointing=True)
    again.load_state_dict(ours.state_dict())
    volume = torch.rand(2, 2, 64, 32, 32)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        (expected, expected_slopes), (found, slopes) = (outcome(PerSampleParallel(n), volume) for n in (ours, again))
    assert torch.equal(found, expected)
    assert all(torch.allclose(slopes[name], expected_slopes[name], atol=1e-6) for name in expected_slopes)


def test_deepest_block_stays_in_float32_under_autocast() -> None:
    network, _ = pair()
    seen: dict[str, set[torch.dtype]] = {"encoder10": set(), "encoder4": set()}

    def note(name: str) -> None:
        for part in getattr(network, name).modules():
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
    assert cosine("encoder10") > 0.9
    lengths = [torch.cat([t.flatten() for t in g.values()]).norm() for g in (expected, found)]
    assert lengths[1] == pytest.approx(float(lengths[0]), rel=0.2)
