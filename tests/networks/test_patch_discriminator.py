"""X2CT-GAN's discriminator scores patches."""

import pytest
import torch

from raylift.networks.patch_discriminator import PatchDiscriminator


@pytest.mark.parametrize(("edge", "scores"), [(32, 2), (64, 6)])
def test_a_score_for_each_patch(edge: int, scores: int) -> None:
    network = PatchDiscriminator(3, 4).train()
    assert network(torch.rand(2, 3, edge, edge, edge)).shape == (2, 1, scores, scores, scores)


def test_parameters_by_hand() -> None:
    # 4³ kernels 3 → 64 → 128 → 256 → 512 → 1, with biases where no normalisation follows.
    kernels = 64 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512)
    assert sum(p.numel() for p in PatchDiscriminator(3).parameters()) == kernels + 64 + 1


def test_a_patch_has_70_voxels() -> None:
    # What a score sees of the volume, but for the statistics of the instance normalisations.
    network = PatchDiscriminator(1, 2)
    for module in network.modules():
        if isinstance(module, torch.nn.InstanceNorm3d):
            module.eval()
            module.track_running_stats = True
            module.running_mean, module.running_var = (torch.full((module.num_features,), v) for v in (0.0, 1.0))
    volume = torch.rand(1, 1, 96, 96, 96, requires_grad=True)
    scores = network(volume)
    assert scores.shape[-1] == 10
    (gradient,) = torch.autograd.grad(scores[0, 0, 5, 5, 5], volume)
    for axis in (0, 1, 2):
        seen = gradient[0, 0].abs().amax([a for a in (0, 1, 2) if a != axis]).nonzero()
        assert int(seen.max() - seen.min()) + 1 == 70


def test_condition_and_volume_both_count() -> None:
    torch.manual_seed(0)
    network, volume = PatchDiscriminator(3, 4), torch.rand(1, 3, 32, 32, 32, requires_grad=True)
    network(volume).square().mean().backward()
    assert volume.grad is not None
    assert (volume.grad.abs().amax((2, 3, 4)) > 0).all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_learns_to_tell_smooth_from_rough() -> None:
    torch.manual_seed(0)
    network = PatchDiscriminator(1, 4)
    rough = torch.rand(2, 1, 32, 32, 32)
    smooth = torch.nn.functional.avg_pool3d(rough, 5, 1, 2)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(20):
        loss = (network(rough) - 1).square().mean() + network(smooth).square().mean()  # LSGAN
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.05  # 0.5 without telling them apart
