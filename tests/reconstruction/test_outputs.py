"""A reconstruction's files: together or not at all, in any format, and a page that needs nothing beside it."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers import Known, describe_tiny, known_weights
from raylift.errors import BadInput
from raylift.geometry import Geometry, View, VolumeGrid
from raylift.images.volume import Volume
from raylift.images.xray_set import XraySet
from raylift.io.volumes import read_volume
from raylift.reconstruction.outputs import OutputPaths, write_results
from raylift.reconstruction.reconstructor import Reconstruction

WEIGHTS = known_weights(Known(0.1), describe_tiny(cases=("a", "b"))).info


def made(uncertainty: bool = True, note: str = "a note") -> Reconstruction:
    random = np.random.default_rng(0)
    grid = VolumeGrid.cube((1, 2, 3), 320, 8)
    volume = Volume(random.uniform(-1000, 1000, grid.shape).astype(np.float32), grid)
    images = random.uniform(0, 5, (2, 32, 32)).astype(np.float32)
    xrays = XraySet(images, (View(180, True), View(90)), Geometry(1600, 1800, 430, 32))
    spread = Volume(np.full(grid.shape, 77, np.float32), grid) if uncertainty else None
    return Reconstruction(volume, xrays, images + 0.1, 0.04, (note,), spread, 0.7)


@pytest.mark.parametrize("name", ["volume.mha", "volume.nii.gz", "volume.npy", "volume"])
def test_every_format_comes_back(tmp_path: Path, name: str) -> None:
    report = write_results(made(), OutputPaths(tmp_path / "new" / name), WEIGHTS)
    for key, expected in (("volume", made().volume), ("uncertainty", made().uncertainty)):
        assert expected is not None
        found = read_volume(tmp_path / "new" / report[key])
        np.testing.assert_array_equal(found.array, np.rint(expected.array))
        np.testing.assert_allclose(found.grid.index_to_world, expected.grid.index_to_world, atol=1e-4)
    assert (report["preview"], report["page"]) == ("volume-preview.png", "volume-report.html")
    assert not list((tmp_path / "new").glob(".*"))


def test_a_dicom_folder_is_not_mixed_with_another(tmp_path: Path) -> None:
    write_results(made(), OutputPaths(tmp_path / "volume"), WEIGHTS)
    with pytest.raises(BadInput, match=r"volume: the folder is not empty; name a new folder"):
        OutputPaths(tmp_path / "volume")


def test_names_that_no_volume_has(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"end the name in one of .*, or in nothing for a folder of DICOM files"):
        OutputPaths(tmp_path / "volume.stl")


def test_the_uncertainty_of_an_earlier_volume_goes(tmp_path: Path) -> None:
    write_results(made(), OutputPaths(tmp_path / "v.mha"), WEIGHTS)
    write_results(made(uncertainty=False), OutputPaths(tmp_path / "v.mha"), WEIGHTS)
    assert not (tmp_path / "v-uncertainty.mha").exists()


def test_nothing_is_left_of_what_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("raylift.reconstruction.outputs.write_page", fail)
    with pytest.raises(OSError, match="disk full"):
        write_results(made(), OutputPaths(tmp_path / "new" / "v.mha"), WEIGHTS)
    assert not (tmp_path / "new").exists()


def test_the_page_needs_nothing_beside_it_and_trusts_no_name(tmp_path: Path) -> None:
    names = OutputPaths(tmp_path / "v.mha")
    write_results(made(note="<script>alert(1)</script>"), names, WEIGHTS, inputs=["<b>.png", 'a".dcm'])
    page = names.page.read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;b&gt;.png" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert page.count("data:image/png;base64,") == 2
    for said in ("pa", "lateral-right", "SHA-256", "not a medical device", "4.0 %", "0.70", "77 HU"):
        assert said in page
    assert "Do not trust" not in page


def test_strange_xrays_are_flagged_at_the_top(tmp_path: Path) -> None:
    names = OutputPaths(tmp_path / "v.mha")
    reconstruction = replace(made(), warnings=("the X-rays are unlike those of the training",))
    report = write_results(reconstruction, names, WEIGHTS)
    head = names.page.read_text().split("<h2>")[0]
    assert "Do not trust this volume:</strong> the X-rays are unlike those of the training" in head
    assert report["warnings"] == list(reconstruction.warnings)
    assert report["trust"].startswith("do not trust the volume, the volume's own projections differ")
