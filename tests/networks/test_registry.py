"""Networks by name, without the cost of importing PyTorch."""

import subprocess
import sys

import pytest
import torch

from raylift import networks
from raylift.networks.registry import NETWORKS
from raylift.networks.swin_unetr import SwinUNETR


def test_every_name_is_built_and_takes_its_channels() -> None:
    assert "swin_unetr" in networks.available()
    for name in networks.available():
        network = networks.build(name, in_channels=3, out_channels=2, feature_size=12, window_size=4)
        with torch.inference_mode():
            assert network(torch.rand(1, 3, 64, 32, 32)).shape == (1, 2, 64, 32, 32), name


def test_swin_unetr_is_the_papers_network() -> None:
    assert isinstance(
        networks.build("swin_unetr", in_channels=1, out_channels=1, feature_size=12, window_size=4), SwinUNETR
    )


def test_unknown_name() -> None:
    with pytest.raises(KeyError, match="swin_unet3d"):
        networks.build("swin_unet3d", in_channels=1, out_channels=1, feature_size=12, window_size=4)


def test_available_lists_the_registry_without_torch() -> None:
    code = (
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('registry', sys.argv[1])\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "print(*module.available(), 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, networks.registry.__file__], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [*NETWORKS, "False"]
