"""What is found in uploads can be written down, whatever it was found by."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raylift.data.phantom import thorax_phantom
from raylift.data.thorax import find_thorax
from raylift.drr.projector import project_volume
from raylift.geometry import Geometry, View
from raylift.images.xray_set import XraySet
from raylift.radiographs.sets import write_xrays
from raylift.reconstruction.reconstructor import Reconstructor
from raylift.server.options import XrayOptions
from raylift.server.upload_reader import ReadRequest, read_upload
from raylift.server.xrays_file import XRAYS_FILE, load_xrays


@pytest.fixture(scope="module")
def reconstructor() -> Reconstructor:
    return Reconstructor.from_pretrained(None, "cpu")


@pytest.fixture
def xrays() -> XraySet:
    phantom = thorax_phantom(0)
    views, geometry = (View.parse("pa"), View.parse("lateral-left")), Geometry.preset("chest-stand", 128)
    return XraySet(project_volume(phantom, geometry, views, find_thorax(phantom).centre), views, geometry)


@pytest.mark.parametrize("view", ["pa", None])
def test_a_picture(tmp_path: Path, reconstructor: Reconstructor, xrays: XraySet, view: str | None) -> None:
    image = xrays.images[0]
    Image.fromarray(np.rint(255 * image / image.max()).astype(np.uint8)).save(tmp_path / "xray-0.png")
    request = ReadRequest(None, tmp_path, ("xray-0.png",), ("a.png",), (XrayOptions(view=view),), view is not None)
    (found,) = json.loads(json.dumps(read_upload(request, reconstructor)))["xrays"]
    assert (found["name"], found["turnable"], type(found["sure"])) == ("a.png", True, bool)
    assert view is None or load_xrays(tmp_path / XRAYS_FILE).views == (View.parse("pa"),)


def test_line_integrals_in_dicom(tmp_path: Path, reconstructor: Reconstructor, xrays: XraySet) -> None:
    write_xrays(xrays, tmp_path / "films", "torch", dicom=True)
    for index, name in enumerate(("pa.dcm", "lateral-left.dcm")):
        (tmp_path / "films" / name).rename(tmp_path / f"xray-{index}.dcm")
    files = ("xray-0.dcm", "xray-1.dcm")
    request = ReadRequest(None, tmp_path, files, ("a.dcm", "b.dcm"), (XrayOptions(view=None),) * 2, True)
    found = json.loads(json.dumps(read_upload(request, reconstructor)))["xrays"]
    assert [one["view"] for one in found] == ["pa", "lateral-left"]
    read = load_xrays(tmp_path / XRAYS_FILE)
    assert read.views == xrays.views
    np.testing.assert_allclose(read.images, xrays.images, atol=1e-3)
