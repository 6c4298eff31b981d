"""CT series of which a file is malformed: each is read, or refused in one line."""

from pathlib import Path

import numpy as np
import pytest

from dicom_files import ct_slice
from malformed import EXAMPLES, damaged, refusal
from raylift.images.volume import Volume
from raylift.io.volumes import read_volume


@pytest.mark.filterwarnings("ignore")
def test_malformed_series(tmp_path: Path) -> None:
    contents = []
    for z in range(6):
        stored = (np.add.outer(np.arange(40), np.arange(30)) * 10 + z).astype(np.uint16)
        ct_slice(stored, (0, 0, 5 * z), (5, 5, 5), "1.2.3", RescaleIntercept=-1024).save_as(tmp_path / "x.dcm")
        contents.append((tmp_path / "x.dcm").read_bytes())
    messages, volumes = [], list[Volume]()
    for seed in range(EXAMPLES):
        rng = np.random.default_rng(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        which = set(rng.integers(6, size=rng.integers(1, 4)).tolist())
        for z, content in enumerate(contents):
            (folder / f"{z}.dcm").write_bytes(damaged(content, rng) if z in which else content)
        message = refusal(lambda: volumes.append(read_volume(folder)))  # noqa: B023 (at once)
        if message is not None:
            assert "\n" not in message
            assert str(tmp_path / str(seed)) in message
            messages.append(message)
    assert len(volumes) + len(messages) == EXAMPLES
    assert len(messages) > EXAMPLES / 3
    for volume in volumes:
        assert np.isfinite(volume.array).all()
        # Slices are left out with a note only.
        assert len(volume.array) == 6 or "left out" in " ".join(volume.notes)
