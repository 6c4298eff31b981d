"""Weights come back as they were saved, and anything that does not fit is one line."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import describe_tiny, described, random_weights
from raylift.errors import BadInput, WrongUsage
from raylift.geometry import Geometry, View
from raylift.model.device import device_of
from raylift.model.weights import (
    DEFAULT,
    EMBEDDED,
    build_lifted_network,
    combine_weights,
    embedded_weights,
    find_weights,
    load_weights,
    save_weights,
)
from raylift.networks.registry import NETWORKS
from raylift.radiographs.out_of_distribution import OODDetector


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(saved, tmp_path / "weights"))


def refused(place: Path) -> str:
    with pytest.raises(BadInput) as caught:
        load_weights(place)
    line = str(caught.value)
    assert "\n" not in line
    assert str(place) in line
    return line


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change `weights.json`."""
    file = folder / "weights.json"
    info = json.loads(file.read_text())
    change(info)
    file.write_text(json.dumps(info))


def seal(folder: Path) -> None:
    """Make the checksum right again."""
    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    edit(folder, lambda info: info.update(sha256=digest))


def test_round_trip(tmp_path: Path) -> None:
    info = describe_tiny(["pa", 45, "lateral-left"], Geometry.preset("x2ct", 64))
    lifted_network = build_lifted_network(described(info))
    save_weights(lifted_network, described(info), tmp_path)
    loaded = load_weights(tmp_path)
    expected = lifted_network.network.state_dict()
    found = loaded.lifted_network.network.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert loaded.lifted_network.views == (View(180.0, True), View(45.0), View(270.0, True))
    assert loaded.lifted_network.geometry == Geometry(541.0, 949.0, 500.0, 64)
    assert loaded.lifted_network.grid.spacing == (5.0, 5.0, 5.0)
    assert loaded.lifted_network.lift_name == "backproject"
    assert not loaded.lifted_network.training
    assert not any(p.requires_grad for p in loaded.lifted_network.parameters())


@pytest.mark.parametrize("name", NETWORKS.own)
def test_every_network_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    info = describe_tiny()
    info["recipe"]["network"] |= {"name": name, "feature_size": 12 if "swin" in name else 8}
    info["recipe"]["lift"] = "image" if NETWORKS[name].takes == "images" else "backproject"
    if name == "ccx_raynet":
        info["recipe"]["objective"] = {"name": "x2ct", "class_maps": 1.0}
    lifted_network = build_lifted_network(described(info))
    path = save_weights(lifted_network, described(info), tmp_path)
    expected = lifted_network.network.state_dict()
    found = load_weights(tmp_path).lifted_network.network.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    parameters = sum(p.numel() for p in lifted_network.network.parameters())
    assert path.stat().st_size < 4.2 * parameters + 200_000  # float32, nothing twice


def test_by_file_and_by_folder(saved: Path) -> None:
    assert load_weights(saved / "weights.safetensors").info == load_weights(str(saved)).info


def test_the_file_says_what_it_is(saved: Path) -> None:
    info = json.loads((saved / "weights.json").read_text())
    assert info["sha256"] == hashlib.sha256((saved / "weights.safetensors").read_bytes()).hexdigest()
    assert info["normalisation"] == {"window_hu": [-1000, 1000], "water_mu_per_mm": 0.02, "xray_scale": 4.0}
    assert "not a medical device" in info["purpose"]
    assert info["recipe"]["network"]["name"] == "swin_unetr"
    assert sorted(path.name for path in saved.iterdir()) == ["weights.json", "weights.safetensors"]


def test_half_precision_is_widened(folder: Path) -> None:
    file = folder / "weights.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(file).items()}, file)
    seal(folder)
    assert {
        t.dtype for t in load_weights(folder).lifted_network.network.state_dict().values() if t.is_floating_point()
    } == {torch.float32}


def test_tampered(folder: Path) -> None:
    file = folder / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    assert "checksum" in refused(folder)


def test_missing(tmp_path: Path) -> None:
    assert "no weights" in refused(tmp_path)
    assert "no weights" in refused(tmp_path / "weights.safetensors")


def test_embedded_ones_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in embedded_weights():
        assert find_weights(name) == EMBEDDED / name / "weights.safetensors"
    assert find_weights(None) == find_weights(DEFAULT)
    monkeypatch.chdir(tmp_path)
    Path(DEFAULT).mkdir()
    (tmp_path / DEFAULT / "weights.safetensors").touch()  # a folder of that name comes first
    assert find_weights(DEFAULT) == Path(DEFAULT) / "weights.safetensors"
    assert find_weights(None) == EMBEDDED / DEFAULT / "weights.safetensors"


def test_without_sidecar(folder: Path) -> None:
    (folder / "weights.json").unlink()
    assert "weights.json" in refused(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"sha256": 5}'])
def test_damaged_sidecar(folder: Path, content: str) -> None:
    (folder / "weights.json").write_text(content)
    refused(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda info: info["normalisation"].update(window_hu=[-1000, 3000]),
        lambda info: info["normalisation"].update(xray_scale=1.0),
    ],
    ids=["window", "scale"],
)
def test_made_with_another_normalisation(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    edit(folder, change)
    assert "another normalisation" in refused(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda info: info["recipe"]["network"].update(feature_size=24),
        lambda info: info["recipe"]["network"].update(name="transformer"),
        lambda info: info["recipe"].update(views=[0]),
        lambda info: info["recipe"].update(views=["front"]),
        lambda info: info["geometry"].update(source_axis_mm=-1),
        lambda info: info["geometry"].pop("pixels"),
        lambda info: info["geometry"].update(pixels="many"),
        lambda info: info.pop("normalisation"),
    ],
    ids=["feature size", "network", "number of views", "view", "geometry", "no pixels", "text", "no normalisation"],
)
def test_sidecar_of_other_weights(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    edit(folder, change)
    refused(folder)


def test_truncated_but_sealed(folder: Path) -> None:
    file = folder / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    seal(folder)
    assert "damaged" in refused(folder)


def test_devices() -> None:
    assert device_of("cpu") == device_of(torch.device("cpu")) == torch.device("cpu")
    assert device_of().type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["foo", "", "meta", f"cuda:{torch.cuda.device_count()}"])
def test_devices_that_do_not_compute_here(name: str) -> None:
    with pytest.raises(WrongUsage, match=f"device '{name}'") as caught:
        device_of(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(b"damaged")], ids=["missing", "other"])
def test_what_xrays_looked_like_belongs_to_the_weights(tmp_path: Path, damage: Callable[[Path], Any]) -> None:
    info, patients = describe_tiny(), np.random.default_rng(0).uniform(0, 6, (4, 64, 64)).astype(np.float32)
    ood_detector = OODDetector.fit(patients, [View(0.0), View(90.0)] * 2, [0, 0, 1, 1])
    save_weights(build_lifted_network(described(info)), described(info), tmp_path, ood_detector)
    assert load_weights(tmp_path).ood_detector is not None
    damage(tmp_path / "ood.safetensors")
    assert "missing, or not the one of weights.safetensors" in refused(tmp_path)


class TestEnsemble:
    def test_answers_with_the_mean(self, tmp_path: Path) -> None:
        each = [load_weights(random_weights(tmp_path / "one"))]
        info = describe_tiny()
        save_weights(
            build_lifted_network(described(info)), described(info), tmp_path / "one"
        )  # from where the generator stands now
        each.append(load_weights(tmp_path / "one"))
        combine_weights(each, tmp_path / "both")
        both = load_weights(tmp_path / "both")
        xrays = torch.rand(1, 2, both.lifted_network.geometry.pixels, both.lifted_network.geometry.pixels)
        with torch.no_grad():
            a, b, mean = (one.lifted_network(xrays) for one in (*each, both))
        assert float((a - b).abs().mean()) > 0.01
        assert torch.allclose(mean, (a + b) / 2, atol=2e-3)  # half precision

    def test_answers_together_in_each_pass(self, tmp_path: Path) -> None:
        info = describe_tiny()
        info["recipe"]["network"] |= {"name": "unet", "feature_size": 4, "iterations": 2, "uncertainty": True}
        each = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            save_weights(build_lifted_network(described(info)), described(info), tmp_path / str(seed))
            each.append(load_weights(tmp_path / str(seed)))
        combine_weights(each, tmp_path / "both")
        both, xrays = load_weights(tmp_path / "both"), torch.rand(1, 2, 64, 64)

        def mean(lifted: torch.Tensor) -> torch.Tensor:
            return (each[0].lifted_network.network(lifted) + each[1].lifted_network.network(lifted)) / 2

        with torch.no_grad():
            expected = each[0].lifted_network.translate(mean, xrays, None, 2)
            assert torch.allclose(both.lifted_network(xrays), expected, atol=0.02)
            assert not torch.allclose(both.lifted_network(xrays), each[0].lifted_network(xrays), atol=0.2)

    @pytest.mark.parametrize(
        "change", [{"views": [0.0, 45.0]}, {"data": {"opposite_views": False}}], ids=["views", "data"]
    )
    def test_of_other_recipes(self, saved: Path, folder: Path, change: dict[str, Any]) -> None:
        edit(folder, lambda info: info["recipe"].update(change))
        with pytest.raises(BadInput, match="another task"):
            combine_weights([load_weights(saved), load_weights(folder)], folder.parent / "both")
        assert not (folder.parent / "both").exists()

    def test_of_recipes_that_say_the_same_otherwise(self, saved: Path, folder: Path) -> None:
        edit(folder, lambda info: info["recipe"].update(views=["ap", "lateral-right"]))
        edit(folder, lambda info: info["recipe"]["network"].pop("iterations"))
        combine_weights([load_weights(saved), load_weights(folder)], folder.parent / "both")
        assert load_weights(folder.parent / "both").info.members == 2

    def test_in_place_of_a_member(self, saved: Path, folder: Path) -> None:
        with pytest.raises(WrongUsage, match="already"):
            combine_weights([load_weights(saved), load_weights(folder)], folder)
        assert load_weights(folder).info.members == 1

    def test_of_one(self, saved: Path) -> None:
        with pytest.raises(WrongUsage, match="two"):
            combine_weights([load_weights(saved)], saved.parent / "both")

    def test_of_an_ensemble(self, saved: Path, tmp_path: Path) -> None:
        combine_weights([load_weights(saved)] * 2, tmp_path)
        with pytest.raises(BadInput, match="already"):
            combine_weights([load_weights(saved), load_weights(tmp_path)], tmp_path / "both")
