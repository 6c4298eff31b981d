"""A network, an objective and a format of another package, as the page on extending has them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from raylift.io.volumes import read_volume
from raylift.plugins import Registry
from repository import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text()
MOST_LINES = {"networks.py": 15, "objectives.py": 16, "npz.py": 18}


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.S)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's package, installed into a folder as pip does it."""
    folder = tmp_path_factory.mktemp("site")
    package, installed = folder / "my_raylift", folder / "my_raylift-1.0.dist-info"
    package.mkdir()
    installed.mkdir()
    (package / "__init__.py").touch()
    names = re.findall(r"`my_raylift/(\w+\.py)`", PAGE)
    assert names == list(MOST_LINES)
    for name, code in zip(names, blocks("python"), strict=True):
        assert len(code.splitlines()) <= MOST_LINES[name]
        (package / name).write_text(code)
    (toml,) = blocks("toml")
    points = re.sub(r'\[project\.entry-points\."(.*?)"\]', r"[\1]", toml[toml.index("[project.entry") :])
    (installed / "entry_points.txt").write_text(points.replace('"', ""))
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: my-raylift\nVersion: 1.0\n")
    return folder


def raylift(site: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "raylift", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=False)


def test_trained_and_reconstructed_by_name(site: Path, prepared: Path, phantom_scans: Path, tmp_path: Path) -> None:
    (recipe,) = blocks("yaml")
    (tmp_path / "mine.yaml").write_text(recipe)
    trained = raylift(site, "train", tmp_path / "mine.yaml", "--data", prepared, "-o", tmp_path / "run")
    assert trained.returncode == 0, trained.stderr
    assert "huber" in (tmp_path / "run" / "metrics.csv").read_text()
    for command in (
        ("drr", next(phantom_scans.glob("*.nii.gz")), "-o", tmp_path / "xrays", "--pixels", 64),
        ("reconstruct", tmp_path / "xrays", "-o", tmp_path / "volume.npz", "--weights", tmp_path / "run"),
        ("reconstruct", tmp_path / "xrays", "-o", tmp_path / "volume.mha", "--weights", tmp_path / "run"),
    ):
        done = raylift(site, *command)
        assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "volume.npz", allow_pickle=False) as file:
        assert (file["hu"] == read_volume(tmp_path / "volume.mha").array).all()


def test_scans_in_its_format_are_scans(site: Path, phantom_scans: Path, tmp_path: Path) -> None:
    code = "import raylift, sys; raylift.write_volume(raylift.read_volume(sys.argv[1]), sys.argv[2])"
    scan, scans = next(phantom_scans.glob("*.nii.gz")), tmp_path / "scans"
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    subprocess.run(
        [sys.executable, "-c", code, scan, scans / "a.npz"], env={**os.environ, "PYTHONPATH": path}, check=True
    )
    done = raylift(site, "drr", scans, "-o", tmp_path / "xrays", "--pixels", 32, "--processes", 1)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "xrays" / "a" / "xrays.json").exists()


def test_a_wrong_key_and_an_unknown_name_are_one_line(site: Path, prepared: Path, tmp_path: Path) -> None:
    (recipe,) = blocks("yaml")
    (tmp_path / "mine.yaml").write_text(recipe)
    for change, expected in (("objective.delta=wide", "objective.delta"), ("objective.name=hubert", "huber")):
        failed = raylift(
            site, "train", tmp_path / "mine.yaml", "--data", prepared, "-o", tmp_path / "run", "--set", change
        )
        assert failed.returncode == 2
        assert expected in failed.stderr.strip()
        assert len(failed.stderr.strip().splitlines()) == 1


def test_names_of_ours_are_not_replaced(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(site))
    registry = Registry("raylift.networks", {"shallow": "ours:Network"}, str)
    assert registry["shallow"] == "ours:Network"
    assert "tiny" in registry  # of the tests' own package
    with pytest.raises(KeyError):
        registry["nothing"]
