"""Reading of uploads, in a process that sees nothing but them: what a stranger sent may kill it, but opens no door."""

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
from raylift.server.kept import NAME, keep
from raylift.server.requests import Xray
from raylift.server.sandbox import confine
from raylift.storage.atomic import is_full
from raylift.storage.paths import suffix_of

if TYPE_CHECKING:
    from raylift.radiographs import Grey, Radiograph
    from raylift.reconstruction.reconstructor import Reconstructor

NICE = 5  # how far reading and reconstructing stand back behind the server, which has to answer at once
PICTURE = 384  # pixels along an edge of what is shown of an X-ray
RESULT = "result.json"
NO_ROOM = 28  # exit code: the disk is full


@dataclass(frozen=True)
class ReadRequest:
    """X-rays to be read.

    Args:
        weights: that they are for.
        folder: where they lie, and where the result is written.
        files: their names in the folder.
        names: that they were given, for messages.
        xrays: how each is to be understood.
        whole: they are to be a job's, so that nothing may be left not certain.
    """

    weights: str | None
    folder: Path
    files: tuple[str, ...]
    names: tuple[str, ...]
    xrays: tuple[Xray, ...]
    whole: bool

    @property
    def paths(self) -> tuple[Path, ...]:
        """Return where the files lie."""
        return tuple(self.folder / file for file in self.files)

    def renamed(self, text: str) -> str:
        """Return a message with the files' given names, and without the folder."""
        for file, name in zip(self.files, self.names, strict=True):
            text = text.replace(str(self.folder / file), name).replace(file, name)
        return text.replace(str(self.folder), "the upload")


def read_confined(request: ReadRequest) -> None:
    """Read a request's X-rays; what is found is written as `result.json` and, for a job, as `kept.NAME`.

    This is what the process runs. It loads the weights, which are the server's own, and then sees only the folder.
    """
    import torch

    from raylift.reconstruction.reconstructor import Reconstructor

    if hasattr(os, "nice"):
        os.nice(NICE)
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    reconstructor = Reconstructor.from_pretrained(request.weights, "cpu")
    tempfile.tempdir = str(request.folder)
    os.chdir(request.folder)
    confine(request.folder)
    try:
        (request.folder / RESULT).write_text(json.dumps(understand(request, reconstructor)))
    except (OSError, SafetensorError) as error:
        sys.exit(NO_ROOM if is_full(request.folder, error) else 1)


def end_with_parent() -> None:
    """Let this process end when that of the server is gone, however it went."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def understand(request: ReadRequest, reconstructor: Reconstructor) -> dict[str, Any]:
    """Read a request's files, and keep a job's X-rays.

    Args:
        request: the files.
        reconstructor: with the weights that they are for.

    Returns:
        Under "xrays", how each is understood, with a picture of it; or one sentence under "error".
    """
    from raylift.radiographs.read import decode

    try:
        for path in request.paths:
            if suffix_of(path) in READERS:
                image_reader(path, alone=True)
        decoded = [decode(path) for path in request.paths]
        found = [_looked_at(request, index, decoded[index], reconstructor) for index in range(len(decoded))]
        if request.whole:
            _keep(request, decoded, reconstructor)
    except (BadInput, WrongUsage, ValueError) as error:
        return {"error": request.renamed(str(error))}
    except MemoryError:
        return {"error": "the X-rays need more memory than reading may take; scale them down"}
    return {"xrays": found}


def _keep(request: ReadRequest, decoded: list[Radiograph | Grey], reconstructor: Reconstructor) -> None:
    """Write the X-rays as the weights take them. Raises BadInput with the files' given names."""
    from raylift.geometry import View

    views = [None if one.view is None else View.parse(one.view) for one in request.xrays]
    orientations = [None if one.orientation is None else one.orientation.parsed() for one in request.xrays]
    xrays = reconstructor.match(reconstructor.read(request.paths, views, orientations, decoded))
    keep(replace(xrays, notes=tuple(request.renamed(note) for note in xrays.notes)), request.folder / NAME)


def _looked_at(
    request: ReadRequest, index: int, radiograph: Radiograph | Grey, reconstructor: Reconstructor
) -> dict[str, Any]:
    """Say how one X-ray is understood."""
    from raylift.geometry import View
    from raylift.radiographs import Grey, Orientation
    from raylift.radiographs.orientation import guess

    asked = request.xrays[index]
    view = View.parse(asked.view) if asked.view else radiograph.view
    sure, orientation, turnable = view is not None, Orientation(), isinstance(radiograph, Grey)
    if isinstance(radiograph, Grey):
        ood_detector = reconstructor.weights.ood_detector
        looks = None if ood_detector is None else guess(radiograph, ood_detector)
        if view is None and looks is not None:
            view, sure = looks.view, looks.sure
        if asked.orientation is not None:
            orientation = asked.orientation.parsed()
        elif looks is not None:
            orientation = looks.orientation
        radiograph = radiograph.oriented(orientation).line_integrals(view is not None and view.lateral)
    return {
        "name": request.names[index],
        "view": None if view is None else view.name,
        "sure": bool(sure),
        "turnable": turnable,
        "orientation": asdict(orientation),
        "picture": _picture(radiograph.image),
    }


def _picture(image: np.ndarray) -> str:
    """Draw line integrals (rows, columns) as a data URL."""
    low, high = np.quantile(image, [0.0, 0.998])
    grey = (255 * np.clip((image - low) / max(high - low, 1e-6), 0, 1)).astype(np.uint8)
    picture = Image.fromarray(grey)
    picture.thumbnail((PICTURE, PICTURE))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
