"""Malformed DICOM radiographs: each is read, or refused in one line that names it."""

from pathlib import Path

import numpy as np
import pytest

from compression import LOSSLESS, compress
from malformed import EXAMPLES, damaged, refusal
from radiograph_files import grey, write_dicom
from raylift.geometry import Geometry, View
from raylift.images.xray_set import XraySet
from raylift.radiographs.intake import read_radiographs

STAND = Geometry.preset("chest-stand", 96)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("compression", ["none", *LOSSLESS])
def test_malformed_radiographs(tmp_path: Path, capfd: pytest.CaptureFixture[str], compression: str) -> None:
    plain = write_dicom(tmp_path / "plain.dcm", grey(16) // 16, PixelSpacing=[4.0, 4.0], ImagerPixelSpacing=[4.0, 4.0])
    if compression in LOSSLESS:
        compress(plain, LOSSLESS[compression])
    found: list[XraySet] = []
    messages = []
    for seed in range(EXAMPLES):
        path = tmp_path / f"{seed}.dcm"
        path.write_bytes(damaged(plain.read_bytes(), np.random.default_rng(seed)))
        message = refusal(lambda: found.append(read_radiographs([path], [View(0.0)], STAND)))  # noqa: B023 (at once)
        if message is not None:
            assert message.startswith(f"{path}: ")
            assert "\n" not in message
            messages.append(message)
    assert len(found) + len(messages) == EXAMPLES
    assert len(messages) > EXAMPLES / 3
    assert capfd.readouterr().err == ""  # decoders print nothing of their own
    for xrays in found:
        assert np.isfinite(xrays.images).all()
        assert xrays.images.min() >= 0
