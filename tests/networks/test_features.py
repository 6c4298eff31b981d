"""The extractor f is random, and never changes."""

import math

import pytest
import torch

from raylift.networks.features import FeatureExtractor


def test_four_maps() -> None:
    maps = FeatureExtractor()(torch.rand(2, 1, 64, 64, 64))
    # 4³ kernels with padding 1: stride 2 halves, stride 1 takes one voxel off.
    assert [tuple(m.shape) for m in maps] == [
        (2, 16, 32, 32, 32),
        (2, 32, 16, 16, 16),
        (2, 64, 8, 8, 8),
        (2, 128, 7, 7, 7),
    ]


def test_weights_are_kaimings() -> None:
    for layer in FeatureExtractor().layers:
        weight = layer[0].weight
        # He et al. 2015 with a LeakyReLU of 0.2: variance 2 / ((1 + 0.2²) · fan in).
        expected = math.sqrt(2 / (1.04 * weight[0].numel()))
        assert float(weight.std()) == pytest.approx(expected, rel=0.05)
        assert abs(float(weight.mean())) < 0.1 * expected


def test_the_first_layer_alone_has_a_bias() -> None:
    biases = [layer[0].bias for layer in FeatureExtractor().layers]
    assert [bias is not None for bias in biases] == [True, False, False, False]
    # As PyTorch draws it: uniform within 1/√(fan in), which is 1 · 4³.
    assert 0.06 < float(biases[0].abs().max()) <= 1 / 8


def test_activations_are_those_of_leaky_relu() -> None:
    f, volume = FeatureExtractor(), torch.rand(1, 1, 16, 16, 16)
    before = torch.nn.functional.conv3d(volume, f.layers[0][0].weight, f.layers[0][0].bias, stride=2, padding=1)
    torch.testing.assert_close(f(volume)[0], torch.where(before > 0, before, 0.2 * before))


def test_never_trained_and_never_changes() -> None:
    f = FeatureExtractor()
    before = {name: tensor.clone() for name, tensor in f.state_dict().items()}
    assert len(before) == 5
    assert not any(p.requires_grad for p in f.parameters())
    assert not [m for m in f.modules() if "Norm" in type(m).__name__]
    f.train()
    volume = torch.rand(1, 1, 32, 32, 32, requires_grad=True)
    sum(m.square().mean() for m in f(volume)).backward()
    assert volume.grad is not None
    assert volume.grad.isfinite().all()
    assert volume.grad.abs().sum() > 0
    assert all(p.grad is None for p in f.parameters())
    for name, tensor in f.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_the_seed_decides_the_weights_alone() -> None:
    torch.manual_seed(1)
    one = FeatureExtractor(seed=3)
    torch.manual_seed(2)
    two, other = FeatureExtractor(seed=3), FeatureExtractor(seed=4)
    for a, b, c in zip(one.parameters(), two.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
