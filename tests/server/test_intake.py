"""What is found in uploads can be written down, whatever it was found by."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raylift.data.phantom import thorax_phantom
from raylift.drr.projector import project_volume
from raylift.geometry import Geometry, View
from raylift.reconstruction import Reconstructor
from raylift.server.intake import ReadRequest, understand
from raylift.server.kept import NAME, kept
from raylift.server.requests import Xray
from raylift.thorax import find_thorax


@pytest.mark.parametrize("view", ["pa", None])
def test_a_picture_by_its_looks_and_by_its_name(tmp_path: Path, view: str | None) -> None:
    phantom = thorax_phantom(0)
    geometry = Geometry.preset("chest-stand", 128)
    image = project_volume(phantom, geometry, [View.parse("pa")], find_thorax(phantom).centre)[0]
    Image.fromarray(np.rint(255 * image / image.max()).astype(np.uint8)).save(tmp_path / "xray-0.png")
    request = ReadRequest(None, tmp_path, ("xray-0.png",), ("a.png",), (Xray(view=view),), True)
    found = json.loads(json.dumps(understand(request, Reconstructor.from_pretrained(None, "cpu"))))
    (one,) = found["xrays"]
    assert (one["name"], one["view"], one["turnable"]) == ("a.png", "pa", True)
    assert isinstance(one["sure"], bool)
    assert kept(tmp_path / NAME).views == (View.parse("pa"),)
