"""A worker process, which loads the weights once, and then claims and reconstructs one job after another."""

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
from raylift.server.jobs import Job, JobList
from raylift.server.options import Options
from raylift.server.settings import ServerSettings
from raylift.server.upload_reader import NICENESS, end_with_parent
from raylift.server.xrays_file import XRAYS_FILE, load_xrays
from raylift.storage.full_disk import is_full

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

    from raylift.reconstruction.reconstructor import Reconstructor

POLL_SECONDS = 0.2  # between two queries for a waiting job
RETRY_SECONDS = 1.0  # between two attempts, where the job list cannot be used
LOG = logging.getLogger("raylift.server")
Answer = TypeVar("Answer")
# The results that a client can fetch: file name and media type.
RESULT_FILES = {
    **{name: media_type_of(name) for name in ("volume.nii.gz", "volume.mha", "volume.nrrd")},
    "volume-dicom.zip": "application/zip",
    **{name: media_type_of(name) for name in ("uncertainty.nii.gz", "uncertainty.mha", "uncertainty.nrrd")},
    "preview.png": "image/png",
    "agreement.png": "image/png",
    "report.html": "text/html; charset=utf-8",
    "report.json": "application/json",
}


class ClaimLost(Exception):
    """Raised in a worker when its job was cancelled, was ended, or is another worker's by now."""


def main(settings: ServerSettings, name: str, number: int, ready: Event) -> None:
    """Run a worker process until the server's process has ended.

    Args:
        settings: the server's settings.
        name: the worker's name, with which it claims jobs.
        number: the worker's number, from 0, which chooses its GPU; without GPUs, it gets its share of the cores.
        ready: an event that is set when the weights are loaded.
    """
    from raylift.reconstruction.reconstructor import Reconstructor

    if hasattr(os, "nice"):
        os.nice(NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl+C, the server ends its workers itself
    end_with_parent()
    jobs = JobList(settings.database, settings.waiting)
    reconstructor = Reconstructor.from_pretrained(settings.weights, _device(number, settings.workers))
    ready.set()
    while True:
        job = retry(lambda: jobs.claim(name))
        if job is None:
            time.sleep(POLL_SECONDS)
        else:
            process_job(job, jobs, settings, reconstructor)


def retry(query: Callable[[], Answer]) -> Answer:
    """Return the answer of the job list, trying again as long as it cannot be used, as during a backup."""
    while True:
        try:
            return query()
        except sqlite3.Error as error:
            LOG.warning("the job list cannot be used (%s); trying again", error)
            time.sleep(RETRY_SECONDS)


def process_job(job: Job, jobs: JobList, settings: ServerSettings, reconstructor: Reconstructor) -> None:
    """Reconstruct one job and record how it ended.

    The results are kept if the worker's claim is still valid when they are complete. Only the worker removes files of
    a job that it works on.

    Args:
        job: a claimed job.
        jobs: the job list.
        settings: the server's settings.
        reconstructor: holds the server's weights.
    """
    assert job.claim is not None
    folder, work_folder = settings.job(job.id), settings.work / job.claim
    error = None
    try:
        work_folder.mkdir(parents=True)
        _reconstruct(job, jobs, settings, reconstructor, work_folder)
        os.rename(work_folder, folder / job.claim)
    except ClaimLost:
        error = "the worker's claim is no longer valid"
    except (BadInput, WrongUsage) as problem:
        error = str(problem).replace(str(settings.folder), "the server's folder")
    except (FileNotFoundError, SafetensorError) as problem:
        LOG.warning("a job's files are gone or damaged (%s)", type(problem).__name__)
        error = "its files on the server are gone or damaged; submit it again"
    except Exception as problem:
        if is_full(settings.work, problem):
            error = "the server's disk is full; submit it again when there is room"
        else:
            LOG.exception("a reconstruction failed")
            error = f"the reconstruction failed ({type(problem).__name__})"
    finally:
        shutil.rmtree(work_folder, ignore_errors=True)
    _end_job(job, jobs, folder, error)


def _end_job(job: Job, jobs: JobList, folder: Path, error: str | None) -> None:
    """Record how a job ended, and remove the files that are no longer needed."""
    assert job.claim is not None
    if retry(lambda: jobs.end(job, "failed" if error else "done", error)):
        if error:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            (folder / XRAYS_FILE).unlink(missing_ok=True)
        return
    current = retry(lambda: jobs.get(job.id))
    if current is None or current.claim == job.claim:  # removed, cancelled, or ended because it took too long
        shutil.rmtree(folder, ignore_errors=True)
    else:
        shutil.rmtree(folder / job.claim, ignore_errors=True)


def _reconstruct(job: Job, jobs: JobList, settings: ServerSettings, reconstructor: Reconstructor, folder: Path) -> None:
    """Reconstruct a job's X-rays and write all results to a folder.

    Raises ClaimLost, through `_report_progress`, where the job was cancelled.
    """
    from raylift.io.dicom import Study, write_ct
    from raylift.io.volumes import write_volume
    from raylift.plots.montages import agreement
    from raylift.reconstruction.outputs import CT_WINDOWS, UNCERTAINTY_WINDOWS, OutputPaths, write_results
    from raylift.storage.atomic import write_json

    def report(note: str, progress: float) -> None:
        _report_progress(job, jobs, note, progress)

    options = Options.model_validate({k: v for k, v in job.options.items() if k in Options.model_fields})
    client_names = tuple(job.options["names"])
    report("reading the X-rays", 0.02)
    xrays = load_xrays(settings.job(job.id) / XRAYS_FILE)
    report("reconstructing", 0.1)
    reconstruction = reconstructor(
        xrays,
        refine=options.refine,
        align=options.align,
        progress=lambda note, done, total: report(f"refining: {note}", 0.2 + 0.6 * done / total),
    )
    report("writing", 0.85)
    names = OutputPaths(folder / "volume.nii.gz")
    summary = write_results(
        reconstruction, names, reconstructor.weights.info, aligned=options.align, inputs=client_names
    )
    for path, result_name in (
        (names.uncertainty, "uncertainty.nii.gz"),
        (names.preview, "preview.png"),
        (names.page, "report.html"),
    ):
        if path.exists():
            path.rename(folder / result_name)
    view_names = [view.name for view in reconstruction.xrays.views]
    agreement(view_names, reconstruction.xrays.images, reconstruction.reprojected, folder / "agreement.png")
    study = Study()
    with tempfile.TemporaryDirectory(dir=folder) as series:
        for number, (kind, volume, windows) in enumerate(
            (
                ("volume", reconstruction.volume, CT_WINDOWS),
                ("uncertainty", reconstruction.uncertainty, UNCERTAINTY_WINDOWS),
            ),
            1,
        ):
            if volume is not None:
                for ending in ("mha", "nrrd"):
                    write_volume(volume, folder / f"{kind}.{ending}")
                write_ct(volume, Path(series) / kind, study, number, f"Raylift {kind}", windows)
        shutil.make_archive(str(folder / "volume-dicom"), "zip", series)
    names.report.unlink()
    result_names = {
        "volume": "volume.nii.gz",
        "uncertainty": None if reconstruction.uncertainty is None else "uncertainty.nii.gz",
        "preview": "preview.png",
        "page": "report.html",
    }
    write_json(summary | result_names, folder / "report.json")


def _report_progress(job: Job, jobs: JobList, note: str, progress: float) -> None:
    """Record a job's progress, unless the job list cannot be used at the moment.

    Raises:
        ClaimLost: the job was cancelled, was ended, or is another worker's by now.
    """
    try:
        valid = jobs.report(job, note, progress)
    except sqlite3.Error:  # the next report may succeed
        return
    if not valid:
        raise ClaimLost


def _device(number: int, workers: int) -> str:
    """Choose a worker's GPU, one after another in turn; without GPUs, divide the cores among the workers.

    Returns:
        The device's name for PyTorch.
    """
    import torch

    if torch.cuda.is_available():
        return f"cuda:{number % torch.cuda.device_count()}"
    torch.set_num_threads(max(1, torch.get_num_threads() // workers))
    return "cpu"
