"""A dataset and a network so small that a training step takes milliseconds."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from raylift.data.dataset import PreparedDataset
from raylift.geometry import VolumeGrid
from raylift.networks.registry import NETWORKS
from raylift.volumes import Volume, write_volume


@pytest.fixture(autouse=True, scope="session")
def tiny_network() -> Iterator[None]:
    """ "tiny" in the registry, and one thread, so that sums are always added in the same order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    NETWORKS["tiny"] = "tiny_network:TinyNetwork"
    yield
    del NETWORKS["tiny"]
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared phantoms at 16³ voxels and 16² pixels. Treat as read-only."""
    folder = tmp_path_factory.mktemp("tiny")
    dataset = PreparedDataset(prepared)
    info = dataset.info | {"voxels": 16, "geometry": dataset.geometry.with_pixels(16).to_dict()}
    (folder / "dataset.json").write_text(json.dumps(info))
    (folder / "splits.json").write_text((prepared / "splits.json").read_text())
    for case in dataset.cases("all"):
        target = folder / "cases" / case.name
        target.mkdir(parents=True)
        for name in ("case.json", "context.npy"):
            (target / name).symlink_to(case.folder / name)
        cube = case.truth.array.reshape(16, 4, 16, 4, 16, 4).mean((1, 3, 5))
        write_volume(Volume(cube, VolumeGrid.cube(case.isocentre, 320.0, 16)), target / "ct.nii.gz")
        xrays = case.xrays.reshape(-1, 16, 4, 16, 4).mean((2, 4), dtype=np.float32)
        sitk.WriteImage(sitk.GetImageFromArray(xrays), str(target / "xrays.mha"))
    return folder
