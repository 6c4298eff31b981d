"""Networks as model files: OpenVINO makes of them what PyTorch makes of the network."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import describe_tiny, described, random_weights, torch_threads
from raylift.cli import main
from raylift.errors import BadInput, WrongUsage
from raylift.images.volume import Volume
from raylift.io.volumes import read_volume, write_volume
from raylift.model.export import ExportedNetwork
from raylift.model.weights import Weights, build_lifted_network, export_weights, load_weights, save_weights
from raylift.reconstruction.reconstructor import Reconstructor


@pytest.fixture(scope="module", autouse=True)
def two_threads() -> Iterator[None]:
    """OpenVINO's sums over a volume are three times less exact on one thread, which tests side by side have."""
    with torch_threads(2):
        yield


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """Random weights of a small U-Net, which is exported in a second."""
    info = describe_tiny()
    info["recipe"]["network"] |= {"name": "unet", "feature_size": 4}
    folder = tmp_path_factory.mktemp("unet")
    torch.manual_seed(0)
    save_weights(build_lifted_network(described(info)), described(info), folder)
    return load_weights(folder)


@pytest.fixture(scope="module")
def exported(unet: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export_weights(unet, path)
    return path


def test_swin_unetr(tmp_path: Path) -> None:
    weights = load_weights(random_weights(tmp_path / "weights"))
    assert export_weights(weights, tmp_path / "model.onnx") < 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.json", "weights"]
    # X-rays of the opposite sides, which the recipe accepts, take another lift and the same network.
    images = np.random.default_rng(0).random((2, 64, 64), np.float32) * 4
    given, views = Reconstructor(weights), ["pa", "lateral-left"]
    again = Reconstructor.from_pretrained(tmp_path / "model.onnx")
    volumes = [r(images, views).volume.array for r in (given, again)]
    assert volumes[0].std() > 1
    assert np.abs(volumes[0] - volumes[1]).max() < 0.5


def test_openvinos_own_form(unet: Weights, tmp_path: Path) -> None:
    assert export_weights(unet, tmp_path / "model.xml") < 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.bin", "model.xml", "model.xml.json"]
    lifted = torch.rand(1, 2, 64, 64, 64)
    with torch.no_grad():
        expected, found = (w.lifted_network.network(lifted) for w in (unet, load_weights(tmp_path / "model.xml")))
    assert (found - expected).abs().max() < 1e-4
    (tmp_path / "model.bin").unlink()
    with pytest.raises(BadInput, match=r"model\.bin"):
        load_weights(tmp_path / "model.xml")


def test_says_where_it_comes_from(unet: Weights, exported: Path) -> None:
    info = json.loads(Path(f"{exported}.json").read_text())
    assert info["exported_from"] == unet.info.sha256 != info["sha256"]
    assert info["recipe"] == unet.info.recipe.model_dump(mode="json")


def test_has_no_gradients(exported: Path) -> None:
    network = load_weights(exported).lifted_network.network
    with pytest.raises(WrongUsage, match="no gradients"):
        network(torch.rand(1, 2, 64, 64, 64, requires_grad=True))


def test_damaged(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / exported.name
    path.write_bytes(exported.read_bytes()[:-100])
    Path(f"{path}.json").write_bytes(Path(f"{exported}.json").read_bytes())
    with pytest.raises(BadInput, match=r"checksum is not the one in model.onnx.json"):
        load_weights(path)


def test_both_forms_beside_the_weights(unet: Weights, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(unet.path.parent, tmp_path / "run"))
    for name in ("weights.onnx", "weights.xml"):
        export_weights(unet, folder / name)
    places = [folder, folder / "weights.onnx", folder / "weights.xml"]
    assert len({load_weights(place).info.sha256 for place in places}) == 3


def test_not_twice(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(WrongUsage, match="already exported"):
        export_weights(load_weights(exported), tmp_path / "model.onnx")


def test_another_function_is_not_written(unet: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExportedNetwork, "forward", lambda self, lifted: torch.full((1, 1, 64, 64, 64), torch.nan))
    with pytest.raises(BadInput, match="differs from the network by nan"):
        export_weights(unet, tmp_path / "model.onnx")
    assert not any(tmp_path.iterdir())


class TestCommand:
    @pytest.fixture
    def raylift(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
        """Run a command; its exit code and what it says."""

        def run(*arguments: object) -> tuple[object, str]:
            monkeypatch.setattr(sys, "argv", ["raylift", *map(str, arguments)])
            with pytest.raises(SystemExit) as stopped:
                main()
            return stopped.value.code, "".join(capsys.readouterr())

        return run

    def test_and_reconstruct(self, raylift, unet: Weights, phantom: Volume, tmp_path: Path) -> None:
        model, xrays = tmp_path / "model.onnx", tmp_path / "xrays"
        code, said = raylift("export", "--weights", unet.path.parent, "-o", model)
        assert (code, "differs by" in said) == (0, True)
        write_volume(phantom, tmp_path / "ct.nii.gz")
        assert raylift("drr", tmp_path / "ct.nii.gz", "--pixels", 64, "-o", xrays)[0] == 0
        for name, weights in (("one", unet.path.parent), ("other", model)):
            assert raylift("reconstruct", xrays, "-o", tmp_path / f"{name}.mha", "--weights", weights)[0] == 0
        one, other = (read_volume(tmp_path / f"{name}.mha").array.astype(float) for name in ("one", "other"))
        assert one.std() > 1
        assert np.abs(one - other).max() <= 1

    def test_other_endings(self, raylift, tmp_path: Path) -> None:
        code, said = raylift("export", "-o", tmp_path / "model.pt")
        assert (code, "ends in .onnx or .xml" in said) == (2, True)

    @pytest.mark.parametrize("package", ["onnxscript", "openvino"])
    def test_without_the_packages(self, raylift, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, package, None)
        code, said = raylift("export", "-o", tmp_path / "model.onnx")
        assert (code, f"{package} is not installed: pip install 'raylift[export]'" in said) == (2, True)
        assert not any(tmp_path.iterdir())


def test_a_model_that_names_another_file(exported: Path, tmp_path: Path) -> None:
    import onnx

    (tmp_path / "secret").write_bytes(np.ones(1000, np.float32).tobytes())
    model = onnx.load(exported)
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, "../secret", 0, 4)
    tensor.ClearField("raw_data")
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BadInput, match="keeps its values in other files"):
        ExportedNetwork(tmp_path / "model.onnx")
