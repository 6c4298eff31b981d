"""Whether folders serve as prepared data of 100,000 cases: opening them, drawing from them, and shards beside them.

python benchmarks/many_cases.py --cases 1000,10000,100000

First the cost that grows with the number of cases, with small contexts: opening the dataset, and drawing cases at
random, which are new to this process, and again. Then the cost of contexts of their usual size, read at random from
folders and one after another from shards (tar files of 100 cases, the form that streaming loaders read), neither in
memory before.
"""

from __future__ import annotations

import argparse
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch  # noqa: F401  (which every user of a dataset has in memory)

from raylift.cli.console import print_table, progress_bar
from raylift.data.dataset import PreparedDataset
from raylift.data.phantom import thorax_phantom
from raylift.data.preparation import PreparationSettings, held_out, prepare_case
from raylift.geometry import Geometry, View, VolumeGrid
from raylift.io.volumes import write_volume

SMALL, USUAL = (16, 16, 16), (160, 140, 180)  # voxels of contexts; 8 MB at 2.5 mm is a patient's
DRAWN = 2000
SHARD = 100


def write_dataset(folder: Path, count: int, shape: tuple[int, int, int]) -> PreparedDataset:
    """A dataset whose cases are all alike but for their names, with contexts of this shape."""
    settings = PreparationSettings(32, (View(0.0), View(90.0)), Geometry.preset("chest-stand", 32))
    scan = write_volume(thorax_phantom(0, 10.0), folder / "scan.nii.gz")
    record = prepare_case(scan, folder / "one", settings)
    record["context_grid"] |= VolumeGrid.box((0, 0, 0), shape, 2.5).to_dict()
    files = {name: (folder / "one" / name).read_bytes() for name in ("ct.nii.gz", "xrays.mha")}
    np.save(folder / "one" / "context.npy", np.random.default_rng(0).integers(-1000, 1000, shape).astype(np.int16))
    files["context.npy"] = (folder / "one" / "context.npy").read_bytes()
    files["case.json"] = json.dumps(record).encode()
    names = [f"collection-{number:07}" for number in range(count)]
    with progress_bar(f"writing {count} cases") as bar:
        for number, name in enumerate(names, 1):
            case = folder / "cases" / name
            case.mkdir(parents=True)
            for file, content in files.items():
                (case / file).write_bytes(content)
            if number % 1000 == 0:
                bar("", number, count)
    origin = {"collection": "lidc_idri", "patient_id": "LIDC-IDRI-0001", "series_uid": "1." + 60 * "2"}
    told = {"status": "ok", "reason": "", "warnings": [], "sha256": record["sha256"], "origin": origin}
    (folder / "dataset.json").write_text(
        json.dumps({"source": "", "licence": "", **settings.to_dict(), "cases": dict.fromkeys(names, told)})
    )
    held = set(held_out({name: name for name in names}))
    splits = {"train": [name for name in names if name not in held], "validation": sorted(held)}
    (folder / "splits.json").write_text(json.dumps(splits))
    return PreparedDataset(folder)


def grown(folder: Path, count: int) -> dict[str, str]:
    """A row: what grows with the number of cases."""
    write_dataset(folder, count, SMALL)
    forget(folder)
    before = resident()
    begun = time.perf_counter()
    cases = PreparedDataset(folder).cases("train")
    opened = time.perf_counter() - begun
    memory = resident() - before
    chosen = np.random.default_rng(0).integers(len(cases), size=min(DRAWN, len(cases)))
    seconds = []
    for _ in range(2):
        begun = time.perf_counter()
        for k in chosen:
            cases[int(k)].context.sum()
        seconds.append((time.perf_counter() - begun) / len(chosen))
    return {
        "cases": f"{count:,}",
        "open (s)": f"{opened:.2f}",
        "memory (MB)": f"{memory:.0f}",
        "draw one (ms)": f"{1000 * seconds[0]:.2f}",
        "again (ms)": f"{1000 * seconds[1]:.2f}",
    }


def compared(folder: Path, count: int) -> list[dict[str, str]]:
    """Rows: contexts of the usual size from folders and from shards."""
    dataset = write_dataset(folder, count, USUAL)
    names = sorted(dataset.info.cases)
    shards = []
    for start in range(0, count, SHARD):
        shards.append(folder / f"shard-{start:06}.tar")
        with tarfile.open(shards[-1], "w") as shard:
            for name in names[start : start + SHARD]:
                shard.add(folder / "cases" / name / "context.npy", f"{name}/context.npy")
    size = len(names) * (folder / "cases" / names[0] / "context.npy").stat().st_size / 1e6

    def at_random() -> None:
        for k in np.random.default_rng(0).permutation(len(names)):
            np.array(dataset.case(names[k]).context)

    def one_after_another() -> None:
        for content in contents(shards):
            np.frombuffer(content, np.int16)

    rows = []
    for title, read in (("folders, at random", at_random), ("shards, in order", one_after_another)):
        forget(folder)
        begun = time.perf_counter()
        read()
        seconds = time.perf_counter() - begun
        rows.append(
            {"contexts from": title, "ms a case": f"{1000 * seconds / count:.1f}", "MB/s": f"{size / seconds:.0f}"}
        )
    return rows


def contents(shards: list[Path]) -> Iterator[bytes]:
    """Of all files in tar files, one after another."""
    for path in shards:
        with tarfile.open(path, "r|") as shard:
            for member in shard:
                file = shard.extractfile(member)
                assert file is not None
                yield file.read()


def forget(folder: Path) -> None:
    """Let the system read files anew; without the rights to that, what is in them at least."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        for path in folder.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def resident() -> float:
    """Memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="1000,10000,100000", help="Numbers of cases.")
    parser.add_argument("--usual", type=int, default=1000, help="Cases with contexts of their usual size, 8 MB.")
    options = parser.parse_args()
    rows = []
    for count in map(int, options.cases.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(grown(Path(folder), count))
    with tempfile.TemporaryDirectory() as folder:
        more = compared(Path(folder), options.usual)
    print_table(rows)
    print_table(more)


if __name__ == "__main__":
    main()
