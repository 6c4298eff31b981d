"""Sets of X-rays in a folder: one image per view, and the sidecar `xrays.json`, as `raylift drr` writes them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from pydantic import Field

from raylift.about import __version__
from raylift.errors import BadInput
from raylift.geometry import Beam, Camera, Geometry, Point, View, common_point
from raylift.images.xray_set import XraySet
from raylift.io.dicom import Study, digital_xray, new_uid
from raylift.radiographs import read_radiograph
from raylift.radiographs.read import read_line_integrals
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
    """One X-ray in `xrays.json`: its file, and its view with the keys of `View.to_dict`, or its camera."""

    file: PlainName
    camera: dict[str, Any] | None = None


class XraySidecar(Typed):
    """The content of `xrays.json`."""

    geometry: dict[str, Any] | None = None
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
    names = [view.name for view in xrays.views]
    if len(set(names)) < len(names):  # cameras of their own may have one view
        names = [f"{name}-{number}" for number, name in enumerate(names, 1)]
    for index, (image, view, name) in enumerate(zip(xrays.images, xrays.views, names, strict=True), 1):
        path = folder / f"{name}.{'dcm' if dicom else 'mha'}"
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
    if xrays.own_cameras:
        sidecar["xrays"] = [
            {"file": path.name, "camera": camera.to_dict()} for path, camera in zip(paths, xrays.cameras, strict=True)
        ]
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
        record, files = _read_sidecar(path)
        point = record.isocentre_lps_mm
        isocentre = (point[0], point[1], point[2]) if point else None
        if any(xray.camera is not None for xray in record.xrays):
            return _read_with_cameras([Camera.from_dict(xray.camera or {}) for xray in record.xrays], files, isocentre)
        geometry = Geometry.from_dict(record.geometry or {})
        views = tuple(View.from_dict(x.model_dump()) for x in record.xrays)
        _check_size([(geometry.pixels, geometry.pixels)] * len(views))
    except BadInput:
        raise
    except (OSError, KeyError, ValueError) as error:
        raise BadInput(path, f"damaged ({error})", "write the X-rays again with raylift drr") from None
    images = [read_radiograph(file).image for file in files]
    for file, image in zip(files, images, strict=True):
        if image.shape != (geometry.pixels,) * 2:
            problem = f"{image.shape[0]}×{image.shape[1]} pixels, but {SIDECAR} says {geometry.pixels}"
            raise BadInput(file, problem, "write the X-rays again with raylift drr")
    return XraySet(np.stack(images), views, geometry, isocentre)


def _read_with_cameras(cameras: Sequence[Camera], files: Sequence[Path], isocentre: Point | None) -> XraySet:
    """Return line integrals whose cameras are known, each sampled on as many rows as columns.

    Without an isocentre, that is the point nearest to the middle rays.

    Raises:
        BadInput: an image is damaged, or has other rows or columns than its camera.
        ValueError: there are too many pixels, or a source is not in front of the isocentre and its detector behind it.
    """
    _check_size([(camera.rows, camera.columns) for camera in cameras])
    pixels = max(max(camera.rows, camera.columns) for camera in cameras)
    images = []
    for camera, file in zip(cameras, files, strict=True):
        image, _ = read_line_integrals(file)
        if image.shape != (camera.rows, camera.columns):
            problem = f"{image.shape[0]}×{image.shape[1]} pixels, its camera has {camera.rows}×{camera.columns}"
            raise BadInput(file, problem, f"correct the camera in {SIDECAR}")
        tensor = torch.from_numpy(image)[None, None]
        images.append(F.interpolate(tensor, (pixels, pixels), mode="bilinear", align_corners=False)[0, 0].numpy())
    stand = Geometry.preset("chest-stand")
    middle = isocentre or common_point(cameras, stand.sad / stand.sdd)
    own = tuple(camera.with_pixels(pixels, pixels) for camera in cameras)
    first = own[0]
    size = pixels * float(max(np.linalg.norm(first.row_step), np.linalg.norm(first.column_step)))
    sad = float(first.axis @ (np.asarray(first.source) - middle))
    geometry = Geometry(sad, first.distance, size, pixels, first.beam is Beam.PARALLEL)
    note = "each X-ray has its own camera, as its file says"
    views = tuple(camera.view for camera in own)
    return XraySet(np.stack(images), views, geometry, middle, (note,), own_cameras=own)


def _check_size(shapes: Sequence[tuple[int, int]]) -> None:
    """Check the number of pixels of a set.

    Raises:
        ValueError: there are too many.
    """
    if sum(rows * columns for rows, columns in shapes) > MOST_VALUES:
        rows, columns = shapes[0]
        raise ValueError(f"{len(shapes)} X-rays of {rows} × {columns} pixels are too many")


def kind_of(paths: Sequence[StoragePath]) -> XrayInput:
    """Return what paths name: a single one may be a set, or a folder of sets; all else are images."""
    path = paths[0]
    if len(paths) > 1:
        return XrayInput.IMAGES
    if path.name == SIDECAR or is_file(path / SIDECAR):
        return XrayInput.SET
    return XrayInput.SETS if not is_file(path) and path.exists() else XrayInput.IMAGES


def _read_sidecar(path: Path) -> tuple[XraySidecar, list[Path]]:
    """Read an `xrays.json`.

    Returns:
        Its content, and the images' files.

    Raises:
        ValueError: an entry is malformed, or a file is named twice.
    """
    record = read_record(path, XraySidecar)
    files = [file_inside(path.parent, x.file) for x in record.xrays]
    if len(set(files)) < len(files):
        raise ValueError("it names a file twice")
    return record, files


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
