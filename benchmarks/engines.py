"""Preparing many scans in plain processes, by Raylift's local engine, and on Ray clusters of one and of two nodes.

python benchmarks/engines.py --scans 300

The scans are phantoms, and three bad ones: cut short, without lungs, and a link to nothing. Ray's nodes are processes
of this machine; two cores work in every run. In the last run a node is killed when a third is done. The table says how
long each took beside plain processes, and whether all cases are there with the checksums of the first run.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import ray
from ray.cluster_utils import Cluster

from raylift.cli.console import print_table, progress_bar
from raylift.data.phantom import thorax_phantom
from raylift.data.preparation import PreparationSettings, prepare, prepare_case
from raylift.data.scans import find_scans
from raylift.geometry import Geometry, View, VolumeGrid
from raylift.images.volume import Volume
from raylift.io.volumes import write_volume
from raylift.parallel.executors import Executor, one_thread

CORES = 2
SETTINGS = PreparationSettings(32, (View(0.0), View(90.0)), Geometry.preset("chest-stand", 64))
Progress = Callable[[str, int, int], None]


def make_scan(path: Path) -> None:
    """The phantom of a file's number."""
    if not path.exists():
        write_volume(thorax_phantom(int(path.name[5:10]), 5.0), path)


def make_scans(folder: Path, count: int) -> Path:
    """Phantoms, the last three of the files bad."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"scan-{number:05}.nii.gz" for number in range(count - 3)]
    with ProcessPoolExecutor(CORES, get_context("spawn"), one_thread) as pool:
        list(pool.map(make_scan, paths))
    (folder / "x-cut.nii.gz").write_bytes(paths[0].read_bytes()[:1000])
    water = np.zeros((64, 64, 64), np.int16)
    water[:, :8] = -1000
    water[0, 0, 0] = 200
    write_volume(Volume(water, VolumeGrid.cube((0, 0, 0), 320, 64)), folder / "x-no-lungs.nii.gz")
    link = folder / "x-nothing.nii.gz"
    if not link.is_symlink():
        link.symlink_to(folder / "not-there")
    return folder


def plain(scans: Path, output: Path, progress: Progress) -> dict[str, str]:
    """Nothing but a pool."""
    names = find_scans(scans)
    with ProcessPoolExecutor(CORES, get_context("spawn"), one_thread) as pool:
        tasks = {n: pool.submit(prepare_case, path, output / "cases" / n, SETTINGS) for n, path in names.items()}
        return {name: str(task.result().get("sha256")) for name, task in tasks.items()}


def local(scans: Path, output: Path, progress: Progress) -> dict[str, str]:
    """Raylift's own processes."""
    return checksums(prepare(scans, output, SETTINGS, engine=Executor("local", CORES), progress=progress))


def on_ray(nodes: int, dying: bool) -> Callable[[Path, Path, Progress], dict[str, str]]:
    """On a cluster of nodes with `CORES` in all, and perhaps one node more, which dies."""

    def run(scans: Path, output: Path, progress: Progress) -> dict[str, str]:
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": CORES // nodes})
        others = [cluster.add_node(num_cpus=CORES // nodes) for _ in range(nodes - 1)]
        ray.init(cluster.address, log_to_driver=False)

        def watch(name: str, done: int, total: int) -> None:
            progress(name, done, total)
            if dying and others and done >= total // 3:
                cluster.remove_node(others.pop(), allow_graceful=False)

        try:
            return checksums(prepare(scans, output, SETTINGS, engine=Executor("ray"), progress=watch))
        finally:
            ray.shutdown()
            cluster.shutdown()

    return run


def checksums(records: dict[str, dict[str, object]]) -> dict[str, str]:
    """Of each case; None of bad ones."""
    for name, record in records.items():
        if record["status"] != "ok":
            print(f"{name}: {record['status']}: {record['reason']}")
    return {name: str(record.get("sha256")) for name, record in records.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=300)
    parser.add_argument("--folder", type=Path, help="For the phantoms, kept for another time.")
    options = parser.parse_args()
    os.environ["RAY_DEDUP_LOGS"] = "0"
    runs = {
        "plain processes": plain,
        "local": local,
        "Ray, 1 node": on_ray(1, False),
        "Ray, 2 nodes": on_ray(2, False),
        "Ray, 2 nodes, one killed": on_ray(2, True),
    }
    rows, first, pace = [], dict[str, str](), 0.0
    with tempfile.TemporaryDirectory() as folder:
        scans = make_scans(options.folder or Path(folder) / "scans", options.scans)
        for name, run in runs.items():
            begun = time.perf_counter()
            with progress_bar(name) as bar:
                found = run(scans, Path(folder) / name, bar)
            seconds = time.perf_counter() - begun
            first, pace = first or found, pace or seconds
            there = len(list((Path(folder) / name / "cases").glob("*/case.json")))
            rows.append(
                {
                    "engine": name,
                    "scans a minute": f"{60 * len(found) / seconds:.0f}",
                    "time, of plain": f"{seconds / pace:.2f}",
                    "cases": there,
                    "same as plain": "yes" if found == first else "NO",
                }
            )
    print_table(rows)


if __name__ == "__main__":
    main()
