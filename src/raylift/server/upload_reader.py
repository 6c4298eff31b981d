"""Reading of uploads in a confined process: a harmful file can crash it, but cannot reach anything else."""

from __future__ import annotations

import base64
import io
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from safetensors import SafetensorError

from raylift.errors import BadInput, WrongUsage
from raylift.io.image_headers import READERS, image_reader
from raylift.server.options import XrayOptions
from raylift.server.sandbox import confine
from raylift.server.xrays_file import XRAYS_FILE, save_xrays
from raylift.storage.full_disk import is_full
from raylift.storage.paths import suffix_of

if TYPE_CHECKING:
    from raylift.radiographs import Grey, Radiograph
    from raylift.reconstruction.reconstructor import Reconstructor

NICENESS = 5  # of processes that read or reconstruct, so that the server can answer at once
PICTURE_PIXELS = 384  # along the longer edge of an X-ray's picture
RESULT_FILE = "result.json"
DISK_FULL_CODE = 28  # exit code


@dataclass(frozen=True)
class ReadRequest:
    """Uploaded X-rays that are to be read.

    Args:
        weights: the weights that the X-rays are read for; None for the embedded ones.
        folder: the uploads' folder, to which the result is written as well.
        files: the files' names in the folder.
        names: the names that the client gave them, for messages.
        xrays: the options of each X-ray.
        whole: whether the X-rays are those of a job, which needs a view for each; else they are only inspected.
    """

    weights: str | None
    folder: Path
    files: tuple[str, ...]
    names: tuple[str, ...]
    xrays: tuple[XrayOptions, ...]
    whole: bool

    @property
    def paths(self) -> tuple[Path, ...]:
        """The paths of the files."""
        return tuple(self.folder / file for file in self.files)

    def with_client_names(self, text: str) -> str:
        """Return a message with the client's names of the files, and without the folder."""
        for file, name in zip(self.files, self.names, strict=True):
            text = text.replace(str(self.folder / file), name).replace(file, name)
        return text.replace(str(self.folder), "the upload")


def read_confined(request: ReadRequest) -> None:
    """Run as a process that reads an upload: load the server's weights, enter the sandbox, read.

    The result goes to `RESULT_FILE` in the request's folder; a job's X-rays go to `XRAYS_FILE` there. The exit code is
    `DISK_FULL_CODE` where the disk is full, and 1 where the files cannot be read or written for another reason.
    """
    import torch

    from raylift.reconstruction.reconstructor import Reconstructor

    if hasattr(os, "nice"):
        os.nice(NICENESS)
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    reconstructor = Reconstructor.from_pretrained(request.weights, "cpu")
    tempfile.tempdir = str(request.folder)
    os.chdir(request.folder)
    confine(request.folder)
    try:
        (request.folder / RESULT_FILE).write_text(json.dumps(read_upload(request, reconstructor)))
    except (OSError, SafetensorError) as error:
        sys.exit(DISK_FULL_CODE if is_full(request.folder, error) else 1)


def end_with_parent() -> None:
    """Start a thread that ends this process when the server's process has ended for any reason."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def read_upload(request: ReadRequest, reconstructor: Reconstructor) -> dict[str, Any]:
    """Read a request's files, and save the X-rays of a job.

    Args:
        request: the files.
        reconstructor: holds the weights that the X-rays are read for.

    Returns:
        The fields of `raylift.server.models.XrayInspection` for each X-ray under "xrays"; or one sentence under
        "error".
    """
    from raylift.radiographs.read import decode

    try:
        for path in request.paths:
            if suffix_of(path) in READERS:
                image_reader(path, self_contained=True)
        decoded = [decode(path) for path in request.paths]
        inspections = [_inspect(request, index, decoded[index], reconstructor) for index in range(len(decoded))]
        if request.whole:
            _save_xrays(request, decoded, reconstructor)
    except (BadInput, WrongUsage, ValueError) as error:
        return {"error": request.with_client_names(str(error))}
    except MemoryError:
        return {"error": "the X-rays need more memory than reading may take; scale them down"}
    return {"xrays": inspections}


def _save_xrays(request: ReadRequest, decoded: list[Radiograph | Grey], reconstructor: Reconstructor) -> None:
    """Save a job's X-rays, resampled for the weights, with the client's file names in their notes."""
    from raylift.geometry import View

    views = [None if options.view is None else View.parse(options.view) for options in request.xrays]
    orientations = [
        None if options.orientation is None else options.orientation.to_orientation() for options in request.xrays
    ]
    xrays = reconstructor.match(reconstructor.read(request.paths, views, orientations, decoded))
    notes, warnings = (tuple(map(request.with_client_names, lines)) for lines in (xrays.notes, xrays.warnings))
    save_xrays(replace(xrays, notes=notes, warnings=warnings), request.folder / XRAYS_FILE)


def _inspect(
    request: ReadRequest, index: int, radiograph: Radiograph | Grey, reconstructor: Reconstructor
) -> dict[str, Any]:
    """Return one X-ray's view, orientation and picture, as the fields of `raylift.server.models.XrayInspection`."""
    from raylift.geometry import View
    from raylift.radiographs import Grey, Orientation
    from raylift.radiographs.orientation import guess

    options = request.xrays[index]
    view = View.parse(options.view) if options.view else radiograph.view
    sure, orientation, turnable = view is not None, Orientation(), isinstance(radiograph, Grey)
    if isinstance(radiograph, Grey):
        ood_detector = reconstructor.weights.ood_detector
        guessed = None if ood_detector is None else guess(radiograph, ood_detector)
        if view is None and guessed is not None:
            view, sure = guessed.view, guessed.sure
        if options.orientation is not None:
            orientation = options.orientation.to_orientation()
        elif guessed is not None:
            orientation = guessed.orientation
        radiograph = radiograph.oriented(orientation).line_integrals(view or View.parse("pa"))
    return {
        "name": request.names[index],
        "view": None if view is None else view.name,
        "sure": bool(sure),
        "turnable": turnable,
        "orientation": asdict(orientation),
        "picture": _picture_url(radiograph.image),
    }


def _picture_url(image: np.ndarray) -> str:
    """Return line integrals (rows, columns) as a PNG in a data URL."""
    low, high = np.quantile(image, [0.0, 0.998])
    grey = (255 * np.clip((image - low) / max(high - low, 1e-6), 0, 1)).astype(np.uint8)
    picture = Image.fromarray(grey)
    picture.thumbnail((PICTURE_PIXELS, PICTURE_PIXELS))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
