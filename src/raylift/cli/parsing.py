"""Options that several commands share, as the package's own types."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from raylift.errors import BadInput, DiskFull, WrongUsage

if TYPE_CHECKING:
    from raylift.geometry import Geometry, View
    from raylift.radiographs.radiograph import ImageSize
    from raylift.storage.paths import StoragePath


def parse_views(text: str) -> tuple[View, ...]:
    """Return the views that --views names, like "0,90" or "pa,lateral-left".

    Raises:
        WrongUsage: one is not a view, or stands there twice.
    """
    from raylift.geometry import View

    try:
        views = tuple(View.parse(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise WrongUsage(f"--views: {error}") from None
    if not views or len(set(views)) != len(views):
        raise WrongUsage(f"--views {text}: give different views, like 0,90")
    return views


def parse_sizes(pixel_size: str, width: str, images: int) -> list[ImageSize | None] | None:
    """Return the sizes that --pixel-size or --width names, one for each of the images; None where neither is given.

    Raises:
        WrongUsage: both are given, a number is not positive, or there are neither one nor as many as images.
    """
    from raylift.radiographs.radiograph import ImageSize

    if not pixel_size and not width:
        return None
    if pixel_size and width:
        raise WrongUsage("give --pixel-size or --width, not both")
    name, text = ("--pixel-size", pixel_size) if pixel_size else ("--width", width)
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise WrongUsage(f"{name} {text}: give numbers in mm, like 0.2 or 0.2,0.14") from None
    if not all(0 < number < math.inf for number in numbers) or len(numbers) not in (1, images):
        raise WrongUsage(f"{name} {text}: give one positive number in mm, or {images}, one for each image")
    numbers *= images if len(numbers) == 1 else 1
    return [ImageSize(pixel_mm=mm) if pixel_size else ImageSize(edge_mm=mm) for mm in numbers]


def parse_geometry(name: str, pixels: int) -> Geometry:
    """Return the geometry of a preset's name, or of SAD/SDD/detector in mm like "1000/1500/400".

    Raises:
        WrongUsage: it is neither.
    """
    from raylift.geometry import Geometry

    try:
        if "/" in name:
            sad, sdd, detector = (float(part) for part in name.split("/"))
            return Geometry(sad, sdd, detector, pixels)
        return Geometry.preset(name, pixels)
    except ValueError as error:
        raise WrongUsage(f"--geometry {name}: {error}") from None


def prepare_tmpdir(output: str | Path) -> None:
    """Check before the work, and before a command's imports, that libraries can write temporary files.

    Where they cannot, they write them beside the output, if that is on this machine. Raises BadInput or DiskFull,
    through `raylift.storage.scratch.prepare_tmpdir`, where nothing can be written.

    Args:
        output: the file or folder that the command writes.
    """
    from raylift.storage.paths import storage_path
    from raylift.storage.scratch import prepare_tmpdir as prepare

    path = storage_path(output)
    if not isinstance(path, Path):
        prepare()
        return
    nearest = path.absolute()
    while not os.path.isdir(nearest):
        nearest = nearest.parent
    prepare(nearest)


def check_output(path: StoragePath, *, folder: bool = False) -> None:
    """Check before the work that its result can be written, a file or files into a folder.

    Raises:
        BadInput: nothing can be written there.
        DiskFull: there is no room.
    """
    from raylift.storage.full_disk import FULL, try_writing

    remedy = "choose another output with -o"
    if not isinstance(path, Path):
        trial = (path if folder else path.parent) / ".raylift-trial"
        try:
            trial.write_bytes(b"")
            trial.unlink()
        except Exception as error:
            raise BadInput(path, f"nothing can be written there ({type(error).__name__}: {error})", remedy) from None
        return
    # os.path takes what it may not look at for missing, pathlib raises.
    if folder and os.path.isfile(path):
        raise BadInput(path, "a file, where a folder is to be written", remedy)
    if not folder and os.path.isdir(path):
        raise BadInput(path, "a folder, where a file is to be written", remedy)
    nearest = path if folder else path.parent
    while not os.path.exists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        try_writing(Path(nearest))
    except OSError as error:
        if error.errno in FULL:
            raise DiskFull(path) from None
        raise BadInput(path, f"nothing can be written in {nearest} ({error.strerror})", remedy) from None


def check_choice(option: str, value: object, choices: Collection[object]) -> None:
    """Check that an option's value is one of its choices.

    Raises:
        WrongUsage: it is not.
    """
    if value not in choices:
        raise WrongUsage(f"{option} {value}: choose one of {', '.join(map(str, choices))}")


def read_token(file: Path | None) -> str | None:
    """Return a server's token: from a file, or else from RAYLIFT_TOKEN, so that no list of processes shows it.

    Raises:
        BadInput: the file cannot be read.
    """
    if file is None:
        return os.environ.get("RAYLIFT_TOKEN") or None
    try:
        if not file.is_file():
            raise BadInput(file, "no such file", "write the token into it, and name it with --token-file")
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(file, f"no token can be read from it ({error})", "write the token into it as text") from None
