"""What a run over LIDC or NLST costs: from what cases cost here, and a model of the rest.

python benchmarks/costs.py

Series of 512 × 512 voxels are written as DICOM and prepared, projected, reconstructed and evaluated, one core each;
the cost of a preparation is interpolated between these. An engine's own cost is that of cases that do nothing. The
second table is the model: series are found, in a store by a listing of each folder, some at a time, which answers after
--listing; then a machine has --cores of this machine's, and reads and writes --rate; cores and files are used at the
same time, and the engine hands out cases one by one, so that the slowest of the three is what the rest lasts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from raylift.cli.console import print_table, progress_bar
from raylift.data.dataset import PreparedDataset
from raylift.data.phantom import thorax_phantom
from raylift.data.preparation import Preparation, PreparationSettings, prepare
from raylift.data.projection import Projection
from raylift.evaluation.evaluation import Evaluation
from raylift.geometry import Geometry, View, VolumeGrid
from raylift.images.volume import Volume
from raylift.io.dicom import Study, write_ct
from raylift.parallel.cases import CaseTask, run_case
from raylift.parallel.executors import HERE, Executor, one_thread, run_cases
from raylift.reconstruction.batch import Lifting
from raylift.reconstruction.reconstructor import Reconstructor
from raylift.storage.paths import PARALLEL_REQUESTS

SLICES = (100, 200, 400)
IN_PLANE, ALONG = 0.72, 360.0  # mm: the width of a voxel, and the length that slices divide
NOTHING = 2000  # cases that do nothing


@dataclass(frozen=True)
class Collection:
    """Series of CT slices, with what they are altogether."""

    name: str
    series: int
    terabytes: float

    @property
    def slices(self) -> float:
        """Of a series, in the mean."""
        return self.terabytes * 1e6 / self.series / SLICE_MB


SLICE_MB = 0.526  # of 512 × 512 values of two bytes, and a header
COLLECTIONS = (Collection("LIDC", 1018, 0.128), Collection("NLST", 203_000, 11.0))


@dataclass(frozen=True)
class Cost:
    """Of one case."""

    seconds: float  # of a core
    read: float  # MB
    written: float  # MB


def write_series(folder: Path, slices: int) -> Path:
    """A phantom as a chest CT usually is."""
    phantom = thorax_phantom(0)
    spacing = (IN_PLANE, IN_PLANE, ALONG / slices)
    low = np.asarray(phantom.grid.centre) - [
        0.5 * s * (n - 1) for s, n in zip(spacing, (512, 512, slices), strict=True)
    ]
    scan = phantom.resample(VolumeGrid((slices, 512, 512), spacing, tuple(low.tolist())))
    write_ct(Volume(np.rint(scan.array).astype(np.int16), scan.grid), folder, Study(), 1, "", [(40.0, 400.0)])
    return folder


def cost(work: CaseTask, source: Any, folder: Path, read: Path) -> Cost:
    """Of a case that is done for the second time, when all that is done once in a process is done."""
    record = run_case(work, (source, folder / "before"))
    assert record["status"] == "ok", record["reason"]
    begun = time.process_time()
    run_case(work, (source, folder / "case"))
    return Cost(time.process_time() - begun, size(read), size(folder / "case"))


def size(folder: Path) -> float:
    """MB."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def measured(folder: Path) -> dict[str, Cost]:
    """The cost of each command's case, of preparations by the number of slices."""
    one_thread()
    costs: dict[str, Cost] = {}
    views, unit = (View(0.0), View(90.0)), Geometry.preset("chest-stand", 256)
    work = {"prepare": Preparation(PreparationSettings()), "drr": Projection(views, unit)}
    for slices in SLICES:
        series = write_series(folder / "scans" / f"series-{slices}", slices)
        for name, one in work.items():
            costs[f"{name}, {slices} slices"] = cost(one, series, folder / f"{name}-{slices}", series)
    xrays = folder / f"drr-{SLICES[0]}" / "case"
    costs["reconstruct"] = cost(Lifting(), xrays, folder / "volume", xrays)
    prepare(folder / "scans", folder / "prepared", PreparationSettings(), executor=HERE)
    data = PreparedDataset(folder / "prepared")
    name = next(iter(data.info.cases))
    scoring = Evaluation(Reconstructor.from_pretrained(), data, "hu", data.views, False, None)
    costs["evaluate"] = cost(scoring, name, folder / "report", folder / "prepared" / "cases" / name)
    return costs


def overhead(engine: Executor) -> float:
    """Seconds that the engine takes for a case that does nothing, its start left out."""
    times = [time.perf_counter() for _ in run_cases(abs, dict.fromkeys(map(str, range(NOTHING)), 0), engine)]
    return (times[-1] - times[len(times) // 4]) / (0.75 * NOTHING)


def between(costs: dict[str, Cost], name: str) -> Callable[[float], float]:
    """Seconds by the number of slices."""
    seconds = [costs[f"{name}, {slices} slices"].seconds for slices in SLICES]
    return lambda slices: float(np.interp(slices, SLICES, seconds))


def modelled(costs: dict[str, Cost], handed: float, cores: int, rate: float, listing: float) -> list[dict[str, str]]:
    """Rows: each collection's preparation on so many machines."""
    seconds, rows = between(costs, "prepare"), []
    written = costs[f"prepare, {SLICES[-1]} slices"].written
    for collection in COLLECTIONS:
        work = collection.series * seconds(collection.slices) / 3600
        moved = collection.terabytes * 1000 + collection.series * written / 1000
        for machines in (1, 4, 16, 64):
            hours = {
                "cores": work / machines / cores,
                "files": moved / rate / machines / 3600,
                "engine": collection.series * handed / 3600,
            }
            found = collection.series * listing / PARALLEL_REQUESTS / 3600
            slowest = max(hours, key=lambda name: hours[name])
            rows.append(
                {
                    "collection": collection.name,
                    "series": f"{collection.series:,}",
                    "slices": f"{collection.slices:.0f}",
                    "core hours": f"{work:,.0f}",
                    "GB read": f"{collection.terabytes * 1000:,.0f}",
                    "GB written": f"{collection.series * written / 1000:,.0f}",
                    "machines": str(machines),
                    "hours": f"{found + hours[slowest]:.2f}",
                    "of them finding": f"{found:.2f}",
                    "bottleneck": slowest if hours[slowest] > found else "finding",
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=16, help="Of a machine.")
    parser.add_argument("--rate", type=float, default=0.5, help="GB/s that a machine reads and writes together.")
    parser.add_argument("--listing", type=float, default=0.1, help="Seconds that a store takes to list a folder.")
    options = parser.parse_args()
    # Each in a process of its own: Ray, and one thread, are for the whole process.
    with tempfile.TemporaryDirectory() as folder, progress_bar("measuring") as bar:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            costs = pool.submit(measured, Path(folder)).result()
        bar("cases", 1, 3)
        handed = {}
        for done, name in enumerate(("local", "ray"), 2):
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                handed[name] = pool.submit(overhead, Executor(name)).result()
            bar(name, done, 3)
    print_table(
        [
            {"case": name, "core seconds": f"{one.seconds:.2f}", "MB read": f"{one.read:.1f}", "MB written":
             f"{one.written:.1f}"}
            for name, one in costs.items()
        ]
    )  # fmt: skip
    print(f"handing out a case: {1000 * handed['local']:.2f} ms local, {1000 * handed['ray']:.2f} ms Ray\n")
    print_table(modelled(costs, handed["ray"], options.cores, options.rate, options.listing))


if __name__ == "__main__":
    main()
