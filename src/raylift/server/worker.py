"""A process that takes jobs and reconstructs, with the weights loaded once."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from safetensors import SafetensorError

from raylift.errors import BadInput, WrongUsage
from raylift.io.formats import media_type_of
from raylift.server.intake import NICE, end_with_parent
from raylift.server.jobs import Job, Jobs
from raylift.server.kept import NAME, kept
from raylift.server.requests import Options
from raylift.server.settings import Settings
from raylift.storage.atomic import is_full

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

    from raylift.reconstruction.reconstructor import Reconstructor

REST = 0.2  # seconds between two looks at the list
AGAIN = 1.0  # seconds between two tries, where the list cannot be used
LOG = logging.getLogger("raylift.server")
Result = TypeVar("Result")
# What a job leaves to be fetched: its name there, and the kind of what it holds.
RESULTS = {
    **{name: media_type_of(name) for name in ("volume.nii.gz", "volume.mha", "volume.nrrd")},
    "volume-dicom.zip": "application/zip",
    **{name: media_type_of(name) for name in ("uncertainty.nii.gz", "uncertainty.mha", "uncertainty.nrrd")},
    "preview.png": "image/png",
    "agreement.png": "image/png",
    "report.html": "text/html; charset=utf-8",
    "report.json": "application/json",
}


class TakenAway(Exception):
    """The job was cancelled, or given to another worker."""


def main(settings: Settings, name: str, number: int, ready: Event) -> None:
    """Work until the server is gone.

    Args:
        settings: of the server.
        name: of this worker, under which it claims jobs.
        number: of this worker among all, from 0: it has a GPU of its own, or its share of the cores.
        ready: set when it begins to work.
    """
    from raylift.reconstruction.reconstructor import Reconstructor

    if hasattr(os, "nice"):
        os.nice(NICE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server ends its workers itself
    end_with_parent()
    jobs = Jobs(settings.database, settings.waiting)
    reconstructor = Reconstructor.from_pretrained(settings.weights, _device(number, settings.workers))
    ready.set()
    while True:
        job = insist(lambda: jobs.claim(name))
        if job is None:
            time.sleep(REST)
        else:
            work(job, jobs, settings, reconstructor)


def insist(ask: Callable[[], Result]) -> Result:
    """Return what the list of jobs answers, as soon as it does: it may be locked for a while, by a backup say."""
    while True:
        try:
            return ask()
        except sqlite3.Error as error:
            LOG.warning("the list of jobs cannot be used (%s); trying again", error)
            time.sleep(AGAIN)


def work(job: Job, jobs: Jobs, settings: Settings, reconstructor: Reconstructor) -> None:
    """Do one job; its results count if it is still this worker's when they are there.

    While a worker is at a job, the job's folder is the worker's to clear.
    """
    assert job.claim is not None
    folder, making = settings.job(job.id), settings.work / job.claim
    error = None
    try:
        making.mkdir(parents=True)
        _reconstruct(job, jobs, settings, reconstructor, making)
        os.rename(making, folder / job.claim)
    except TakenAway:
        error = "it was taken away"
    except (BadInput, WrongUsage) as problem:
        error = str(problem).replace(str(settings.folder), "the server's folder")
    except (FileNotFoundError, SafetensorError) as problem:
        LOG.warning("a job's files are gone or damaged (%s)", type(problem).__name__)
        error = "its files on the server are gone or damaged; hand it in again"
    except Exception as problem:
        if is_full(settings.work, problem):
            error = "the server's disk is full; hand it in again when there is room"
        else:
            LOG.exception("a reconstruction failed")
            error = f"the reconstruction failed ({type(problem).__name__})"
    finally:
        shutil.rmtree(making, ignore_errors=True)
    _end(job, jobs, folder, error)


def _end(job: Job, jobs: Jobs, folder: Path, error: str | None) -> None:
    """Say what became of a job, and leave of its folder what that needs."""
    assert job.claim is not None
    if insist(lambda: jobs.end(job, "failed" if error else "done", error)):
        if error:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            (folder / NAME).unlink(missing_ok=True)
        return
    now = insist(lambda: jobs.get(job.id))
    if now is None or now.claim == job.claim:  # removed, cancelled, or ended since it took too long
        shutil.rmtree(folder, ignore_errors=True)
    else:
        shutil.rmtree(folder / job.claim, ignore_errors=True)


def _reconstruct(job: Job, jobs: Jobs, settings: Settings, reconstructor: Reconstructor, folder: Path) -> None:
    from raylift.io.dicom import Study, write_ct
    from raylift.io.volumes import write_volume
    from raylift.plots.montages import agreement
    from raylift.reconstruction.outputs import CT_WINDOWS, UNCERTAINTY_WINDOWS, OutputPaths, write_results
    from raylift.storage.atomic import write_json

    def say(note: str, done: float) -> None:
        try:
            ours = jobs.report(job, note, done)
        except sqlite3.Error:  # that can wait
            return
        if not ours:
            raise TakenAway

    options = Options.model_validate({k: v for k, v in job.options.items() if k in Options.model_fields})
    names = tuple(job.options["names"])
    say("reading the X-rays", 0.02)
    xrays = kept(settings.job(job.id) / NAME)
    say("reconstructing", 0.1)
    made = reconstructor(
        xrays,
        refine=options.refine,
        align=options.align,
        progress=lambda note, done, total: say(f"refining: {note}", 0.2 + 0.6 * done / total),
    )
    say("writing", 0.85)
    named = OutputPaths(folder / "volume.nii.gz")
    report = write_results(made, named, reconstructor.weights.info, aligned=options.align, inputs=names)
    for here, there in (
        (named.uncertainty, "uncertainty.nii.gz"),
        (named.preview, "preview.png"),
        (named.page, "report.html"),
    ):
        if here.exists():
            here.rename(folder / there)
    shown = [view.name for view in made.xrays.views]
    agreement(shown, made.xrays.images, made.reprojected, folder / "agreement.png")
    uncertainty = None if made.uncertainty is None else "uncertainty.nii.gz"
    study = Study()
    with tempfile.TemporaryDirectory(dir=folder) as series:
        for number, (kind, volume, windows) in enumerate(
            (("volume", made.volume, CT_WINDOWS), ("uncertainty", made.uncertainty, UNCERTAINTY_WINDOWS)), 1
        ):
            if volume is not None:
                for ending in ("mha", "nrrd"):
                    write_volume(volume, folder / f"{kind}.{ending}")
                write_ct(volume, Path(series) / kind, study, number, f"Raylift {kind}", windows)
        shutil.make_archive(str(folder / "volume-dicom"), "zip", series)
    named.report.unlink()
    files_there = {
        "volume": "volume.nii.gz",
        "uncertainty": uncertainty,
        "preview": "preview.png",
        "page": "report.html",
    }
    write_json(report | files_there, folder / "report.json")


def _device(number: int, workers: int) -> str:
    """The GPU of a worker; without one, the CPU, whose cores the workers divide."""
    import torch

    if torch.cuda.is_available():
        return f"cuda:{number % torch.cuda.device_count()}"
    torch.set_num_threads(max(1, torch.get_num_threads() // workers))
    return "cpu"
