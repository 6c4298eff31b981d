"""Uploads are read in a process of their own, which may be killed by what it reads; the server asks it and lives on."""

from __future__ import annotations

import base64
import io
import multiprocessing
import os
import resource
import signal
import threading
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from raylift.errors import BadInput, WrongUsage
from raylift.server.requests import Xray, check_whole

if TYPE_CHECKING:
    from raylift.reconstruction import Reconstructor
    from raylift.xrays import XraySet

MEMORY = 6 * 2**30  # bytes of address space that reading may take
NICE = 5  # how far reading and reconstructing stand back behind the server, which has to answer at once
PICTURE = 384  # pixels along an edge of what is shown of an X-ray


@dataclass(frozen=True)
class Ask:
    """X-rays to be understood.

    Args:
        weights: that they are for.
        files: where they lie.
        names: that they were given, for messages.
        xrays: how each is to be understood.
    """

    weights: str | None
    files: tuple[Path, ...]
    names: tuple[str, ...]
    xrays: tuple[Xray, ...]

    def renamed(self, text: str) -> str:
        """A message with the files' given names."""
        for file, name in zip(self.files, self.names, strict=True):
            text = text.replace(str(file), name).replace(file.name, name)
        return text


def begin() -> None:
    """In the new process: bounds, the server's answers first, and no part in its interrupts."""
    os.nice(NICE)
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def end_with_parent() -> None:
    """Let this process end when that of the server is gone, however it went."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@cache
def reconstructor_of(weights: str | None) -> Reconstructor:
    """Loaded once in a process; what reading asks of it, a CPU does."""
    from raylift.reconstruction import Reconstructor

    return Reconstructor.from_pretrained(weights, "cpu")


def load(weights: str | None) -> None:
    """Have the weights before they are needed."""
    reconstructor_of(weights)


def read(ask: Ask, reconstructor: Reconstructor) -> XraySet:
    """The X-rays, as the weights take them. Raises BadInput with the files' given names."""
    from raylift.geometry import View

    views = [None if one.view is None else View.parse(one.view) for one in ask.xrays]
    hangings = [None if one.hang is None else one.hang.hanging() for one in ask.xrays]
    xrays = reconstructor.matched(reconstructor.read(ask.files, views, hangings))
    return replace(xrays, notes=tuple(ask.renamed(note) for note in xrays.notes))


def understand(ask: Ask, whole: bool) -> dict[str, Any]:
    """What is in the files, in the reading process.

    Args:
        ask: the files.
        whole: they are to be a job's, so that nothing may be left in doubt.

    Returns:
        Under "xrays", how each is understood, with a picture of it; or one sentence under "error".
    """
    try:
        found = [_looked_at(ask, index) for index in range(len(ask.files))]
        if whole:
            read(ask, reconstructor_of(ask.weights))
    except (BadInput, WrongUsage, ValueError) as error:
        return {"error": ask.renamed(str(error))}
    except MemoryError:
        return {"error": "the X-rays need more memory than reading may take; scale them down"}
    return {"xrays": found}


def _looked_at(ask: Ask, index: int) -> dict[str, Any]:
    from raylift.geometry import View
    from raylift.hanging import guess
    from raylift.radiographs import Grey, Hanging, decode

    file, asked = ask.files[index], ask.xrays[index]
    check_whole(file, ask.names[index])
    radiograph = decode(file)
    view = View.parse(asked.view) if asked.view else radiograph.view
    sure, hanging, turnable = view is not None, Hanging(), isinstance(radiograph, Grey)
    if isinstance(radiograph, Grey):
        familiarity = reconstructor_of(ask.weights).weights.familiarity
        looks = None if familiarity is None else guess(radiograph, familiarity)
        if view is None and looks is not None:
            view, sure = looks.view, looks.sure
        if asked.hang is not None:
            hanging = asked.hang.hanging()
        elif looks is not None:
            hanging = looks.hanging
        radiograph = radiograph.hung(hanging).line_integrals(view is not None and view.lateral)
    return {
        "name": ask.names[index],
        "view": None if view is None else view.name,
        "sure": sure,
        "turnable": turnable,
        "hang": asdict(hanging),
        "picture": _picture(radiograph.image),
    }


def _picture(image: np.ndarray) -> str:
    """Line integrals (rows, columns) as a data URL."""
    low, high = np.quantile(image, [0.0, 0.998])
    grey = (255 * np.clip((image - low) / max(high - low, 1e-6), 0, 1)).astype(np.uint8)
    picture = Image.fromarray(grey)
    picture.thumbnail((PICTURE, PICTURE))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
