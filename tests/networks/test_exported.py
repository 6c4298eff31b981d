"""Networks as model files: OpenVINO makes of them what PyTorch makes of the network."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import describe_tiny, random_weights
from raylift.cli import main
from raylift.errors import BadInput, WrongUsage
from raylift.reconstruction import Reconstructor
from raylift.weights import Weights, build_mapping, export_weights, load_weights, save_weights


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """Random weights of a small U-Net, which is exported in a second."""
    info = describe_tiny()
    info["recipe"]["network"] |= {"name": "unet", "feature_size": 4}
    folder = tmp_path_factory.mktemp("unet")
    torch.manual_seed(0)
    save_weights(build_mapping(info), info, folder)
    return load_weights(folder)


@pytest.fixture(scope="module")
def exported(unet: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export_weights(unet, path)
    return path


def test_swin_unetr(tmp_path: Path) -> None:
    weights = load_weights(random_weights(tmp_path / "weights"))
    assert export_weights(weights, tmp_path / "model.onnx") < 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.onnx", "weights"]
    # X-rays of the opposite sides, which the recipe accepts, take another lift and the same network.
    images = np.random.default_rng(0).random((2, 64, 64), np.float32) * 4
    given, views = Reconstructor(weights), ["pa", "lateral-left"]
    again = Reconstructor.from_pretrained(tmp_path / "model.onnx")
    volumes = [r(images, views).volume.array for r in (given, again)]
    assert volumes[0].std() > 1
    assert np.abs(volumes[0] - volumes[1]).max() < 0.5


def test_openvinos_own_form(unet: Weights, tmp_path: Path) -> None:
    assert export_weights(unet, tmp_path / "model.xml") < 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.bin", "model.json", "model.xml"]
    lifted = torch.rand(1, 2, 64, 64, 64)
    with torch.no_grad():
        expected, found = (w.mapping.network(lifted) for w in (unet, load_weights(tmp_path / "model.xml")))
    assert (found - expected).abs().max() < 1e-4
    (tmp_path / "model.bin").unlink()
    with pytest.raises(BadInput, match=r"model\.bin"):
        load_weights(tmp_path / "model.xml")


def test_says_where_it_comes_from(unet: Weights, exported: Path) -> None:
    info = json.loads(exported.with_suffix(".json").read_text())
    assert info["exported_from"] == unet.info["sha256"] != info["sha256"]
    assert info["recipe"] == unet.info["recipe"]


def test_has_no_gradients(exported: Path) -> None:
    network = load_weights(exported).mapping.network
    with pytest.raises(WrongUsage, match="no gradients"):
        network(torch.rand(1, 2, 64, 64, 64, requires_grad=True))


def test_damaged(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / exported.name
    path.write_bytes(exported.read_bytes()[:-100])
    path.with_suffix(".json").write_bytes(exported.with_suffix(".json").read_bytes())
    with pytest.raises(BadInput, match=r"checksum is not the one in model\.json"):
        load_weights(path)


@pytest.mark.parametrize("package", ["onnxscript", "openvino"])
def test_without_the_packages(package: str, exported: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(sys, "argv", ["raylift", "export", "-o", str(tmp_path / "model.onnx")])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert f"{package} is not installed: pip install 'raylift[export]'" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_other_endings(unet: Weights, tmp_path: Path) -> None:
    with pytest.raises(WrongUsage, match=r"ends in \.onnx or \.xml"):
        export_weights(unet, tmp_path / "model.pt")
