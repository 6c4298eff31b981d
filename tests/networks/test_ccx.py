"""CCX-rayNet: what it adds to X2CT-GAN's generator, piece by piece."""

import pytest
import torch
from one_pair import share_left

from raylift.networks.ccx import AdaptiveFeatureFusion, CCXRayNet, DeepFeatureTransform, DepthAwareConnection
from raylift.networks.layers.dense import Average, ConnectionB
from raylift.networks.x2ct import X2CT


@pytest.mark.parametrize(("axes", "batch", "voxels"), [((1, 2), 2, 32), ((2,), 1, 32), ((1, 2), 1, 64)])
def test_shapes(axes: tuple[int, ...], batch: int, voxels: int) -> None:
    network, images = CCXRayNet(axes, voxels, 4), torch.rand(batch, len(axes), voxels, voxels) * 2
    volume, classes = network.train()(images)
    assert volume.shape == (batch, 1, voxels, voxels, voxels)
    assert classes.shape == (batch, len(axes), 3, voxels, voxels)
    assert classes.min() >= 0
    assert classes.max() <= 1
    torch.testing.assert_close(network.eval()(images), volume)


def test_size_is_x2ct_gans_and_a_little() -> None:
    with torch.device("meta"):
        ours, theirs = CCXRayNet((1, 2), 128, 16), X2CT((1, 2), 128, 16)
    ratio = sum(p.numel() for p in ours.parameters()) / sum(p.numel() for p in theirs.parameters())
    assert 1 < ratio < 1.05


def test_class_maps_are_of_their_own_image() -> None:
    torch.manual_seed(0)
    network, images = CCXRayNet((1, 2), 16, 2), torch.rand(2, 2, 16, 16)
    classes = network(images)[1]
    for b in range(2):
        for n in range(2):
            torch.testing.assert_close(classes[b, n], network.segment(images[b, n][None, None])[0])


@pytest.mark.parametrize("axes", [(1, 2), (2,)])
def test_segmentation_learns_from_the_class_maps_alone(axes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = CCXRayNet(axes, 16, 2)
    volume, classes = network(torch.rand(1, len(axes), 16, 16))
    volume.square().mean().backward(retain_graph=True)
    assert all(p.grad is None for p in network.segment.parameters())
    others = {n: p.grad for n, p in network.named_parameters() if not n.startswith("segment")}
    assert [name for name, gradient in others.items() if gradient is None or not gradient.isfinite().all()] == []
    network.zero_grad()
    classes.mean().backward()
    assert all(p.grad is not None for p in network.segment.parameters())
    assert all(p.grad is None for n, p in network.named_parameters() if not n.startswith("segment"))


def test_classes_steer_the_volume() -> None:
    torch.manual_seed(0)
    network, images = CCXRayNet((1, 2), 16, 2).eval(), torch.rand(1, 2, 16, 16)
    before = network(images)
    network.segment.register_forward_hook(lambda _module, _images, classes: 1 - classes)
    assert (network(images) - before).abs().max() > 1e-3


class TestDeepFeatureTransform:
    def test_scale_and_shift_of_each_pixel(self) -> None:
        torch.manual_seed(0)
        transform, classes = DeepFeatureTransform(4), torch.rand(1, 3, 8, 8)
        zeros, ones = torch.zeros(1, 4, 8, 8), torch.ones(1, 4, 8, 8)
        shift = transform(classes, zeros)
        scale = transform(classes, ones) - shift
        maps = torch.randn(1, 4, 8, 8)
        torch.testing.assert_close(transform(classes, maps), scale * maps + shift)
        assert scale.std((2, 3)).min() > 1e-3
        assert shift.std((2, 3)).min() > 1e-3

    def test_a_class_acts_where_it_is_seen(self) -> None:
        torch.manual_seed(0)
        transform, maps, classes = DeepFeatureTransform(4), torch.rand(1, 4, 8, 8), torch.rand(1, 3, 32, 32)
        other = classes.clone()
        other[:, 2, 8:12, 20:24] += 0.5  # pixel (2, 5) of the features, and by the 3² convolution its neighbours
        changed = (transform(classes, maps) != transform(other, maps)).any(1)[0].nonzero()
        assert changed.min(0).values.tolist() == [1, 4]
        assert changed.max(0).values.tolist() == [3, 6]


class TestDepthAwareConnection:
    def test_one_weight_for_each_voxel(self) -> None:
        torch.manual_seed(0)
        connection, maps = DepthAwareConnection(4, 2, 8), torch.rand(1, 4, 8, 8)
        mask = connection.mask(maps)
        assert mask.shape == (1, 1, 8, 8, 8)
        # (z, depth, column): channel d of the 2D convolution weighs depth d.
        weights = connection.attention(maps).sigmoid()
        for z, depth, column in ((1, 2, 3), (7, 0, 4)):
            torch.testing.assert_close(mask[0, 0, z, depth, column], weights[0, depth, z, column])

    def test_an_open_mask_is_connection_b(self) -> None:
        torch.manual_seed(0)
        connection, plain, maps = DepthAwareConnection(4, 2, 8), ConnectionB(4, 2, 8), torch.rand(1, 4, 8, 8)
        plain.load_state_dict({n: t for n, t in connection.state_dict().items() if not n.startswith("attention")})
        assert not torch.allclose(connection(maps), plain(maps), atol=1e-3)
        torch.nn.init.constant_(connection.attention.bias, 50)
        torch.testing.assert_close(connection(maps), plain(maps))

    def test_what_it_multiplies(self) -> None:
        torch.manual_seed(0)
        connection, maps = DepthAwareConnection(4, 2, 8), torch.rand(1, 4, 8, 8)
        torch.nn.init.zeros_(connection.attention.weight)
        with torch.no_grad():
            connection.attention.bias[:] = -50
            connection.attention.bias[6] = 50  # only depth 6 is let through
        seen = []
        connection.solid.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
        connection(maps)
        flat = connection.narrow(maps)
        torch.testing.assert_close(seen[0][:, :, :, 6], flat)
        assert seen[0][:, :, :, [0, 1, 2, 3, 4, 5, 7]].abs().max() < 1e-6


class TestAdaptiveFeatureFusion:
    def test_one_view_is_left_alone(self) -> None:
        view = torch.rand(2, 4, 3, 3, 3)
        torch.testing.assert_close(AdaptiveFeatureFusion(4)([view]), view)

    def test_rows_of_the_similarity_are_means(self) -> None:
        similarity = AdaptiveFeatureFusion(4).similarity(torch.randn(2, 9, 4), torch.randn(2, 9, 4))
        assert similarity.shape == (2, 9, 9)
        torch.testing.assert_close(similarity.sum(-1), torch.ones(2, 9))

    def sharp(self, width: int) -> AdaptiveFeatureFusion:
        fusion = AdaptiveFeatureFusion(width)
        torch.nn.init.orthogonal_(fusion.embed.weight)
        torch.nn.init.constant_(fusion.log_scale, 6.0)
        return fusion

    def test_identical_views(self) -> None:
        torch.manual_seed(0)
        view = torch.randn(1, 16, 2, 3, 4)
        torch.testing.assert_close(self.sharp(16)([view, view]), view)

    def test_a_displaced_view_is_brought_back(self) -> None:
        torch.manual_seed(0)
        view = torch.randn(1, 16, 2, 3, 4)
        displaced = view.roll((1, 1, 2), (2, 3, 4))
        torch.testing.assert_close(self.sharp(16)([view, displaced]), view)
        assert not torch.allclose(Average()([view, displaced]), view, atol=0.1)

    def test_where_the_maps_are_small(self) -> None:
        joins = CCXRayNet((1, 2), 32, 2).fusion.joins
        assert [isinstance(join, AdaptiveFeatureFusion) for join in joins] == [False, False, True, True, True, True]
        assert not any(isinstance(join, AdaptiveFeatureFusion) for join in CCXRayNet((1,), 32, 2).fusion.joins)


def test_learns_one_pair() -> None:
    torch.manual_seed(0)
    assert share_left(CCXRayNet((1, 2), 16, 4), 16, steps=30, rate=5e-3) < 1 / 4
