"""Sets of X-rays in a folder: one image per view, and the sidecar `xrays.json`, as `raylift drr` writes them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import SimpleITK as sitk
from pydantic import Field

from raylift.about import __version__
from raylift.errors import BadInput
from raylift.geometry import Geometry, Point, View
from raylift.images.xray_set import XraySet
from raylift.io.dicom import Study, digital_xray, new_uid
from raylift.radiographs import read_radiograph
from raylift.storage.atomic import atomic_write, write_json
from raylift.storage.paths import StoragePath, add_case, case_name, is_file, walk
from raylift.storage.records import Millimetres, PlainName, Typed, file_inside, read_record

SIDECAR = "xrays.json"
MOST_XRAYS = 1000  # in a set
MOST_VALUES = 2**29  # pixels in a set: 2 GB


class XrayInput(Enum):
    """What a user names as X-rays."""

    IMAGES = "image files of one patient"
    SET = "an `xrays.json`, or the folder that holds one"
    SETS = "a folder of sets"


class SidecarXray(Typed):
    """One X-ray in `xrays.json`: its file, and its view with the keys of `View.to_dict`."""

    file: PlainName


class XraySidecar(Typed):
    """The content of `xrays.json`."""

    geometry: dict[str, Any]
    isocentre_lps_mm: Annotated[list[Millimetres], Field(min_length=3, max_length=3)] | None
    xrays: Annotated[list[SidecarXray], Field(min_length=1, max_length=MOST_XRAYS)]


def write_xrays(xrays: XraySet, folder: StoragePath, engine: str, *, dicom: bool = False) -> list[StoragePath]:
    """Write one file per view, with the pixel spacing on the detector, and `xrays.json`.

    Args:
        xrays: the X-rays to write.
        folder: where to write them; created if missing.
        engine: name of the projector that computed them.
        dicom: write DICOM digital radiographs (.dcm) instead of .mha.

    Returns:
        The paths of the images.
    """
    # An earlier sidecar would describe a mixture of old and new images if this were interrupted.
    (folder / SIDECAR).unlink(missing_ok=True)
    paths = []
    study, series = Study(), new_uid()
    for index, (image, view) in enumerate(zip(xrays.images, xrays.views, strict=True), 1):
        path = folder / f"{view.name}.{'dcm' if dicom else 'mha'}"
        with atomic_write(path) as temporary:
            if dicom:
                digital_xray(image, view, xrays.geometry, study, series, index).save_as(temporary, overwrite=True)
            else:
                picture = sitk.GetImageFromArray(image.astype(np.float32))
                picture.SetSpacing((xrays.geometry.pitch,) * 2)
                sitk.WriteImage(picture, str(temporary), useCompression=True)
        paths.append(path)
    sidecar = {
        "format": 1,
        "raylift": __version__,
        "engine": engine,
        "unit": "line integral of attenuation, no unit",
        "geometry": xrays.geometry.to_dict(),
        "isocentre_lps_mm": list(xrays.isocentre) if xrays.isocentre else None,
        "xrays": [{"file": p.name, **v.to_dict()} for p, v in zip(paths, xrays.views, strict=True)],
    }
    write_json(sidecar, folder / SIDECAR)
    return paths


def read_xrays(folder: str | Path) -> XraySet:
    """Read the X-rays that `write_xrays` wrote.

    Args:
        folder: the folder, or its `xrays.json`.

    Returns:
        The X-rays, with line integrals (N, rows, columns).

    Raises:
        BadInput: the sidecar or an image is missing or damaged, or they disagree.
    """
    folder = Path(folder)
    path = folder if folder.name == SIDECAR else folder / SIDECAR
    if not path.exists():
        raise BadInput(folder, f"no {SIDECAR} in it", "give a folder that raylift drr wrote, or images with --views")
    try:
        files, views, geometry, isocentre = _read_sidecar(path)
    except (OSError, KeyError, ValueError) as error:
        raise BadInput(path, f"damaged ({error})", "write the X-rays again with raylift drr") from None
    images = [read_radiograph(file).image for file in files]
    for file, image in zip(files, images, strict=True):
        if image.shape != (geometry.pixels,) * 2:
            problem = f"{image.shape[0]}×{image.shape[1]} pixels, but {SIDECAR} says {geometry.pixels}"
            raise BadInput(file, problem, "write the X-rays again with raylift drr")
    return XraySet(np.stack(images), views, geometry, isocentre)


def kind_of(paths: Sequence[StoragePath]) -> XrayInput:
    """Return what paths name: a single one may be a set, or a folder of sets; all else are images."""
    path = paths[0]
    if len(paths) > 1:
        return XrayInput.IMAGES
    if path.name == SIDECAR or is_file(path / SIDECAR):
        return XrayInput.SET
    return XrayInput.SETS if not is_file(path) and path.exists() else XrayInput.IMAGES


def _read_sidecar(path: Path) -> tuple[list[Path], tuple[View, ...], Geometry, Point | None]:
    """Read an `xrays.json`.

    Returns:
        The images' files, their views, the geometry and the isocentre (x, y, z) in mm.

    Raises:
        ValueError: an entry is malformed, a file is named twice, or there are too many pixels.
    """
    record = read_record(path, XraySidecar)
    geometry = Geometry.from_dict(record.geometry)
    views = tuple(View.from_dict(x.model_dump()) for x in record.xrays)
    if len(views) * geometry.pixels**2 > MOST_VALUES:
        raise ValueError(f"{len(views)} X-rays of {geometry.pixels} × {geometry.pixels} pixels are too many")
    files = [file_inside(path.parent, x.file) for x in record.xrays]
    if len(set(files)) < len(files):
        raise ValueError("it names a file twice")
    point = record.isocentre_lps_mm
    return files, views, geometry, (point[0], point[1], point[2]) if point else None


def find_sets(folder: StoragePath) -> dict[str, StoragePath]:
    """Return the folders below a folder that hold an `xrays.json`, by case name.

    Raises:
        BadInput: there are none.
    """
    sets: dict[str, StoragePath] = {}
    for here, folders, files in walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if SIDECAR in files:
            add_case(sets, case_name(here, folder), here)
    if not sets:
        raise BadInput(folder, f"no {SIDECAR} in it", "give a folder that raylift drr wrote, or images with --views")
    return dict(sorted(sets.items()))
