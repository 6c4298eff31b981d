"""A process that takes jobs and reconstructs, with the weights loaded once."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from raylift.errors import BadInput, WrongUsage
from raylift.server.jobs import Job, Jobs
from raylift.server.reading import NICE, Ask, end_with_parent, read
from raylift.server.requests import Options
from raylift.server.settings import Settings

if TYPE_CHECKING:
    from raylift.reconstruction import Reconstructor

REST = 0.2  # seconds between two looks at the list
# What a job leaves to be fetched: its name there, and the kind of what it holds.
RESULTS = {
    "volume.nii.gz": "application/gzip",
    "volume.mha": "application/octet-stream",
    "volume.nrrd": "application/octet-stream",
    "volume-dicom.zip": "application/zip",
    "doubt.nii.gz": "application/gzip",
    "doubt.mha": "application/octet-stream",
    "doubt.nrrd": "application/octet-stream",
    "preview.png": "image/png",
    "agreement.png": "image/png",
    "report.html": "text/html; charset=utf-8",
    "report.json": "application/json",
}


class TakenAway(Exception):
    """The job was cancelled, or given to another worker."""


def main(settings: Settings, name: str, number: int) -> None:
    """Work until the server is gone.

    Args:
        settings: of the server.
        name: of this worker, under which it claims jobs.
        number: of this worker among all, from 0: it has a GPU of its own, or its share of the cores.
    """
    from raylift.reconstruction import Reconstructor

    os.nice(NICE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server ends its workers itself
    end_with_parent()
    jobs = Jobs(settings.database, settings.waiting)
    reconstructor = Reconstructor.from_pretrained(settings.weights, _device(number, settings.workers))
    while True:
        job = jobs.claim(name)
        if job is None:
            time.sleep(REST)
        else:
            work(job, jobs, settings, reconstructor)


def work(job: Job, jobs: Jobs, settings: Settings, reconstructor: Reconstructor) -> None:
    """Do one job; its results count if it is still this worker's when they are there."""
    assert job.claim is not None
    folder = settings.job(job.id)
    error = None
    for left in folder.iterdir():  # by a worker that died
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".", suffix=".partial") as partial:
        try:
            _reconstruct(job, jobs, settings, reconstructor, Path(partial))
            os.rename(partial, folder / job.claim)
            Path(partial).mkdir()  # for TemporaryDirectory to remove
        except TakenAway:
            return
        except (BadInput, WrongUsage) as problem:
            error = str(problem)
        except Exception as problem:
            traceback.print_exc()
            error = f"the reconstruction failed ({type(problem).__name__})"
    if not jobs.end(job, "failed" if error else "done", error):
        shutil.rmtree(folder / job.claim, ignore_errors=True)


def _reconstruct(job: Job, jobs: Jobs, settings: Settings, reconstructor: Reconstructor, folder: Path) -> None:
    from raylift.dicom import Study, write_ct
    from raylift.evaluation.figures import agreement
    from raylift.places import write_json
    from raylift.results.files import CT_WINDOWS, DOUBT_WINDOWS, Names, write_results
    from raylift.volumes import write_volume

    def say(note: str, done: float) -> None:
        if not jobs.report(job, note, done):
            raise TakenAway

    options = Options.model_validate({k: v for k, v in job.options.items() if k in Options.model_fields})
    names = tuple(job.options["names"])
    files = tuple(settings.job(job.id) / file for file in job.options["files"])
    say("reading the X-rays", 0.02)
    xrays = read(Ask(settings.weights, files, names, tuple(options.xrays)), reconstructor)
    say("reconstructing", 0.1)
    made = reconstructor(
        xrays,
        refine=options.refine,
        align=options.align,
        progress=lambda note, done, total: say(f"refining: {note}", 0.2 + 0.6 * done / total),
    )
    say("writing", 0.85)
    named = Names(folder / "volume.nii.gz")
    report = write_results(made, named, reconstructor.weights.info, aligned=options.align, inputs=names)
    for here, there in ((named.doubt, "doubt.nii.gz"), (named.preview, "preview.png"), (named.page, "report.html")):
        if here.exists():
            here.rename(folder / there)
    shown = [view.name for view in made.xrays.views]
    agreement(shown, made.xrays.images, made.reprojected, folder / "agreement.png")
    doubt = None if made.doubt is None else "doubt.nii.gz"
    study = Study()
    with tempfile.TemporaryDirectory() as series:
        for number, (kind, volume, windows) in enumerate(
            (("volume", made.volume, CT_WINDOWS), ("doubt", made.doubt, DOUBT_WINDOWS)), 1
        ):
            if volume is not None:
                for ending in ("mha", "nrrd"):
                    write_volume(volume, folder / f"{kind}.{ending}")
                write_ct(volume, Path(series) / kind, study, number, f"Raylift {kind}", windows)
        shutil.make_archive(str(folder / "volume-dicom"), "zip", series)
    named.report.unlink()
    files_there = {"volume": "volume.nii.gz", "doubt": doubt, "preview": "preview.png", "page": "report.html"}
    write_json(report | files_there, folder / "report.json")


def _device(number: int, workers: int) -> str:
    """The GPU of a worker; without one, the CPU, whose cores the workers divide."""
    import torch

    if torch.cuda.is_available():
        return f"cuda:{number % torch.cuda.device_count()}"
    torch.set_num_threads(max(1, torch.get_num_threads() // workers))
    return "cpu"
