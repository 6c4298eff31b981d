"""What tests of several packages share: coarse phantoms, a dataset prepared from them, and real scans if there are.

Training steps take milliseconds with the `tiny` dataset and network, which is here as another package would add it.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from raylift.data.dataset import PreparedDataset
from raylift.data.phantom import thorax_phantom
from raylift.data.preparation import PreparationSettings, prepare
from raylift.geometry import Geometry, View, VolumeGrid
from raylift.images.volume import Volume
from raylift.io.volumes import read_volume, write_volume
from raylift.parallel.executors import HERE
from raylift.plots.montages import montage
from raylift.storage.paths import stem_of
from raylift.training import out_of_distribution as fit_ood_detector
from raylift.training import validation
from repository import SHARED

if TYPE_CHECKING:
    import pandas as pd

    from object_store import Store

# Tests run beside one another (pytest-xdist), and so do the programs that they start: each takes its share of threads.
_SHARE = max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
os.environ["OMP_NUM_THREADS"] = str(_SHARE)
torch.set_num_threads(_SHARE)

PHANTOM_SEEDS = (0, 1, 2)
LONG = ("integration", "training", "server", "plugins")  # folders whose files take minutes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that the processes that share them end at about the same time."""
    items.sort(key=lambda item: item.path.parent.name not in LONG)


REAL = [SHARED / "ct" / f"{name}.nii.gz" for name in ("LIDC-IDRI-0001", "LCTSC-Test-S1-101", "Lung_Dx-A0002")]


@pytest.fixture(
    scope="session", params=[None, *filter(Path.exists, REAL)], ids=lambda p: stem_of(p) if p else "phantom"
)
def scan(request: pytest.FixtureRequest, phantom: Volume) -> Volume:
    """A phantom and, on a machine that has them beside the repository, three real scans. Treat as read-only."""
    return phantom if request.param is None else read_volume(request.param)


@pytest.fixture(scope="session")
def phantom() -> Volume:
    """A chest at 5 mm without any symmetry. Treat as read-only."""
    return thorax_phantom(0, 5.0)


def _blank(truth: Volume, volume: Volume, xrays: object, path: Path, title: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.fixture(autouse=True, scope="session")
def _quick_trainings() -> Iterator[None]:
    """Trainings draw no previews, and learn what X-rays look like from few of them: seconds less for each."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fit_ood_detector, "SETS", 24)
        patched.setattr(validation, "montage", _blank)
        yield


@pytest.fixture
def previews(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings draw previews, for a test that looks at them."""
    monkeypatch.setattr(validation, "montage", montage)


@pytest.fixture(scope="session")
def phantom_scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three coarse phantoms, `phantom-0.nii.gz` and so on. Treat as read-only."""
    folder = tmp_path_factory.mktemp("scans")
    for seed in PHANTOM_SEEDS:
        write_volume(thorax_phantom(seed, 5.0), folder / f"phantom-{seed}.nii.gz")
    return folder


@pytest.fixture(scope="session")
def prepared(phantom_scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantoms as a prepared dataset: 64 voxels, 64 pixels, views 0° and 90°, phantom-2 held out. Read-only."""
    folder = tmp_path_factory.mktemp("prepared")
    settings = PreparationSettings(64, (View(0.0), View(90.0)), Geometry.preset("chest-stand", 64))
    prepare(phantom_scans, folder, settings, validation=["phantom-2"], licence="CC0-1.0", executor=HERE)
    return folder


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """One thread, so that sums are always added in the same order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared phantoms at 16³ voxels and 16² pixels. Treat as read-only."""
    folder = tmp_path_factory.mktemp("tiny")
    dataset = PreparedDataset(prepared)
    info = dataset.info.model_dump(mode="json") | {"voxels": 16, "geometry": dataset.geometry.with_pixels(16).to_dict()}
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


@pytest.fixture(scope="session")
def index() -> "pd.DataFrame":
    """The real index of the public collections. Treat as read-only."""
    from raylift.data.collections import read_index

    return read_index()


@pytest.fixture
def store() -> Iterator["Store"]:
    """An empty object store on this machine."""
    from object_store import Store

    store = Store()
    yield store
    store.close()


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """PyTorch's number of threads, one and several."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
