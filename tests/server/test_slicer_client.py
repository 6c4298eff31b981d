"""What the 3D Slicer module does without 3D Slicer: from files to files, through a real server."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from radiograph_files import grey
from raylift.io.volumes import read_volume
from repository import ROOT

sys.path.insert(0, str(ROOT / "slicer" / "Raylift"))
from RayliftLib.client import Client, Refused


def test_from_files_to_a_volume(tmp_path: Path, serve: Callable[..., Any]) -> None:
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file in files:
        Image.fromarray(grey(8)).save(file)
    with serve(tmp_path / "server") as server:
        client, told = Client(server.url), list[tuple[str, float]]()
        volume, uncertainty, trust = client.reconstruct(
            files, ["pa", "lateral-left"], tmp_path, progress=lambda note, done: told.append((note, done)) or True
        )
        assert read_volume(volume).array.shape == (64, 64, 64)
        assert uncertainty is None  # these weights tell none
        assert "differ from the X-rays" in trust
        assert told[-1] == ("done", 1.0)
        with pytest.raises(Refused, match="is no view"):
            client.reconstruct(files, ["front", None], tmp_path)
        with pytest.raises(Refused, match="cancelled"):
            client.reconstruct(files, ["pa", "lateral-left"], tmp_path, refine=True, progress=lambda note, done: False)


def test_without_a_server(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"does not answer .*; is raylift serve running"):
        Client("http://127.0.0.1:9").cancel("0" * 32)
