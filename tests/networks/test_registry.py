"""Networks by name, without the cost of importing PyTorch."""

import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from raylift import networks
from raylift.networks.registry import NETWORKS
from raylift.networks.swin_unetr import SwinUNETR


def build(name: str, **sizes: Any) -> torch.nn.Module:
    given = {"in_channels": 3, "out_channels": 2, "feature_size": 24, "window_size": 4, "voxels": 32, "axes": (1, 2)}
    return networks.build(name, **given | sizes)


ON_VOLUMES = [name for name, entry in NETWORKS.own.items() if entry.takes == "volume"]
ON_IMAGES = [name for name, entry in NETWORKS.own.items() if entry.takes == "images"]
SMALL = {"swin_unetr": 12, "monai_swin_unetr": 12, "segresnet": 8}  # feature sizes; 4 for the others
# Until one pair is learned; 60 for the others.
STEPS = {
    "swin_unetr": 40,
    "monai_swin_unetr": 40,
    "unet": 120,
    "residual_unet": 100,
    "fine_residual_unet": 100,
    "unetr": 90,
    "dynunet": 200,
}


@pytest.mark.parametrize("name", ON_VOLUMES)
def test_networks_on_volumes_take_their_channels(name: str) -> None:
    network = build(name, feature_size=SMALL.get(name, 4), voxels=64)
    with torch.inference_mode():
        assert network.eval()(torch.rand(1, 3, 64, 64, 64)).shape == (1, 2, 64, 64, 64)


@pytest.mark.parametrize("name", ON_IMAGES)
def test_networks_on_images_take_their_views(name: str) -> None:
    network = build(name, feature_size=4)
    with torch.inference_mode():
        assert network.eval()(torch.rand(1, 2, 32, 32)).shape == (1, 1, 32, 32, 32)


@pytest.mark.parametrize(
    ("name", "feature_size", "channels", "millions"),
    [
        ("swin_unetr", 48, (4, 3), 61.98),  # Hatamizadeh et al. 2022 (Swin UNETR), for brain tumours
        ("segresnet", 32, (4, 3), 18.79),  # as counted there
        ("unetr", 16, (1, 14), 92.58),  # Hatamizadeh et al. 2022 (UNETR), for abdominal organs at 96³
    ],
)
def test_parameters_are_those_published(
    name: str, feature_size: int, channels: tuple[int, int], millions: float
) -> None:
    before, after = channels
    sizes = {"in_channels": before, "out_channels": after, "feature_size": feature_size}
    count = sum(p.numel() for p in build(name, window_size=7, voxels=96, **sizes).parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize("name", ON_VOLUMES)
def test_networks_on_volumes_overfit_one_pair(name: str) -> None:
    torch.manual_seed(0)
    network = build(name, in_channels=2, out_channels=1, feature_size=SMALL.get(name, 4), voxels=32)
    coarse = torch.rand(1, 1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    truth = F.interpolate(coarse, (64, 32, 32) if "swin" in name else (32, 32, 32), mode="trilinear")
    views = torch.cat([truth.mean(axis, keepdim=True).expand_as(truth) for axis in (3, 4)], 1)
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    for _ in range(STEPS.get(name, 60)):
        loss = (network(views) - truth).square().mean()
        # The best weighted sum of the two views, which needs no network, leaves 0.48.
        if float(loss.detach()) < 0.25 * float(truth.var()):
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pytest.fail(f"{float(loss.detach()) / float(truth.var()):.2f} of the variance is left")


def test_swin_unetr_is_the_papers_network() -> None:
    assert isinstance(build("swin_unetr"), SwinUNETR)


def test_unknown_name() -> None:
    with pytest.raises(KeyError, match="swin_unet3d"):
        build("swin_unet3d")


def test_available_lists_the_registry_without_torch() -> None:
    code = (
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('registry', sys.argv[1])\n"
        "module = sys.modules['registry'] = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "print(*module.available(), 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, networks.registry.__file__], capture_output=True, text=True, check=True
    )
    shipped = [name for name in NETWORKS if name != "tiny"]  # which a fixture of other tests adds
    assert done.stdout.split() == [*shipped, "False"]
