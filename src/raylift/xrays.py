"""A set of X-rays with the views, the unit and the isocentre they were taken with: what `raylift drr` writes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import SimpleITK as sitk
from pydantic import Field

from raylift._version import __version__
from raylift.dicom import Study, digital_xray, new_uid
from raylift.errors import BadInput
from raylift.familiarity import Familiarity
from raylift.geometry import Geometry, Point, View
from raylift.hanging import guess
from raylift.places import Place, add_case, case_name, replacing, walk, write_json
from raylift.radiographs import Grey, Hanging, Radiograph, decode, read_radiograph
from raylift.radiographs.checks import MAX_PIXELS, MIN_EDGE
from raylift.records import Millimetres, PlainName, Typed, inside, read_record

SIDECAR = "xrays.json"
MOST_XRAYS = 1000  # of a set
MOST_VALUES = 2**29  # pixels of a set: 2 GB
SAY_VIEW = "say it with --views, like pa,lateral-left"


class SidecarXray(Typed):
    """One X-ray in `xrays.json`: its file, and its view as `View.to_dict` says it."""

    file: PlainName


class XraySidecar(Typed):
    """The content of `xrays.json`."""

    geometry: dict[str, Any]
    isocentre_lps_mm: Annotated[list[Millimetres], Field(min_length=3, max_length=3)] | None
    xrays: Annotated[list[SidecarXray], Field(min_length=1, max_length=MOST_XRAYS)]


@dataclass(frozen=True)
class XraySet:
    """X-rays of one patient.

    Args:
        images: line integrals (N, rows, columns), float32; row 0 is superior.
        views: one per image.
        geometry: X-ray unit; its `pixels` are those of the images.
        isocentre: world point (x, y, z) in mm; None where it is not known, as for a photographed radiograph.
        notes: what a user should know of the images, one sentence each.
    """

    images: np.ndarray
    views: tuple[View, ...]
    geometry: Geometry
    isocentre: Point | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        pixels = self.geometry.pixels
        if self.images.shape != (len(self.views), pixels, pixels):
            raise ValueError(f"X-rays {self.images.shape} are not {len(self.views)} views of {pixels}×{pixels} pixels")


def write_xrays(xrays: XraySet, folder: Place, engine: str, *, dicom: bool = False) -> list[Place]:
    """Write one file per view, with the pixel spacing on the detector, and `xrays.json`.

    Args:
        xrays: to be written.
        folder: for them; made if missing.
        engine: that projected them.
        dicom: digital radiographs (.dcm) instead of .mha.

    Returns:
        The images' paths.
    """
    # An older sidecar would vouch for a mixture of old and new images, were this interrupted.
    (folder / SIDECAR).unlink(missing_ok=True)
    paths = []
    study, series = Study(), new_uid()
    for index, (image, view) in enumerate(zip(xrays.images, xrays.views, strict=True), 1):
        path = folder / f"{view.name}.{'dcm' if dicom else 'mha'}"
        with replacing(path) as temporary:
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
    """Read what `write_xrays` wrote.

    Raises:
        BadInput: the sidecar or an image is missing or damaged, or they disagree.
    """
    folder = Path(folder)
    path = folder if folder.name == SIDECAR else folder / SIDECAR
    if not path.exists():
        raise BadInput(folder, f"no {SIDECAR} in it", "give a folder that raylift drr wrote, or images and --views")
    try:
        record = read_record(path, XraySidecar)
        geometry = Geometry.from_dict(record.geometry)
        views = tuple(View.from_dict(x.model_dump()) for x in record.xrays)
        if len(views) * geometry.pixels**2 > MOST_VALUES:
            raise ValueError(f"{len(views)} X-rays of {geometry.pixels} × {geometry.pixels} pixels are too many")
        files = [inside(path.parent, x.file) for x in record.xrays]
        if len(set(files)) < len(files):
            raise ValueError("a file stands there twice")
        point = record.isocentre_lps_mm
        isocentre = (point[0], point[1], point[2]) if point else None
    except (OSError, KeyError, ValueError) as error:
        raise BadInput(path, f"damaged ({error})", "make the X-rays again with raylift drr") from None
    images = [read_radiograph(file).image for file in files]
    for file, image in zip(files, images, strict=True):
        if image.shape != (geometry.pixels,) * 2:
            problem = f"{image.shape[0]}×{image.shape[1]} pixels, but {SIDECAR} says {geometry.pixels}"
            raise BadInput(file, problem, "make the X-rays again with raylift drr")
    return XraySet(np.stack(images), views, geometry, isocentre)


def find_sets(folder: Place) -> dict[str, Place]:
    """The folders below one that hold X-rays with their `xrays.json`, by case name. Raises BadInput if none does."""
    found: dict[str, Place] = {}
    for here, folders, files in walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if SIDECAR in files:
            add_case(found, case_name(here, folder), here)
    if not found:
        raise BadInput(folder, f"no {SIDECAR} in it", "give a folder that raylift drr wrote, or images and --views")
    return dict(sorted(found.items()))


def read_radiographs(
    files: Sequence[str | Path],
    views: Sequence[View | None] | None,
    geometry: Geometry,
    *,
    any_unit: bool = False,
    familiarity: Familiarity | None = None,
    hangings: Sequence[Hanging | None] | None = None,
    decoded: Sequence[Radiograph | Grey] | None = None,
) -> XraySet:
    """Read radiographs taken with a known or assumed unit onto its detector.

    A file that says its pixel spacing is cropped or padded to the detector's size about its centre; any other is
    taken to show the detector from edge to edge. Pictures and DICOM radiographs hang for reading, so that their views
    in the set are the hung ones of the angles given, like 180° mirrored for 180°; line integrals keep theirs.

    Args:
        files: X-ray images, as `read_radiograph` takes them.
        views: one per file; where there is none, what the file says, or looks like.
        geometry: X-ray unit that is assumed; its pixels are not used.
        any_unit: take the source's distances from the files instead, where they all say the same.
        familiarity: what X-rays look like: by it pictures are found to have dark bones, and their views guessed.
        hangings: one per file, that makes it hang for reading; None to leave that to its looks.
        decoded: what `decode` made of each file, where that was done already.

    Raises:
        BadInput: a file is unusable, not of the view given, or its view is not known, or files and views differ in
            number.
    """
    if not files:
        raise BadInput("X-rays", "none", "give at least one")
    if views is not None and len(files) != len(views):
        raise BadInput(f"{len(files)} X-rays", f"{len(views)} views given", "give one view per X-ray with --views")
    images, taken, notes, distances = [], [], [], []
    nothing = [None] * len(files)
    known = zip(files, views or nothing, hangings or nothing, decoded or nothing, strict=True)
    for file, given, hanging, content in known:
        radiograph, view, facts = _understood(Path(file), given, familiarity, hanging, content or decode(file))
        image = radiograph.image
        if radiograph.pixel_mm is not None:
            wanted = round(geometry.detector_mm / radiograph.pixel_mm)
            if not MIN_EDGE <= wanted <= math.isqrt(MAX_PIXELS):
                problem = f"pixels of {radiograph.pixel_mm:g} mm on a detector of {geometry.detector_mm:g} mm"
                raise BadInput(file, problem, "correct the file's pixel spacing")
            image = _crop_or_pad(image, wanted)
        else:
            facts = [*facts, f"taken to be {geometry.detector_mm:g} mm wide"]
        images.append(image)
        taken.append(view.hung if radiograph.hung else view)
        distances.append(radiograph.distances)
        notes.append(", ".join([f"{Path(file).name}: {radiograph.note}", *facts]))
    told = set(distances) if any_unit and not geometry.parallel else {None}
    if len(told) == 1 and (told_by_all := told.pop()) is not None:
        geometry = replace(geometry, sad=told_by_all[0], sdd=told_by_all[1])
        notes.append(f"the files say the unit: {describe_unit(geometry)}")
    else:
        notes.append(f"the unit is taken to be that of the weights: {describe_unit(geometry)}")
    pixels = max(image.shape[0] for image in images)
    same = [_resized(image, pixels) for image in images]
    return XraySet(np.stack(same), tuple(taken), geometry.with_pixels(pixels), None, tuple(notes))


def describe_unit(geometry: Geometry) -> str:
    """In words."""
    beam = "a parallel beam" if geometry.parallel else f"SAD {geometry.sad:g} and SDD {geometry.sdd:g} mm"
    return f"{beam}, detector {geometry.detector_mm:g} mm"


def _understood(
    file: Path,
    given: View | None,
    familiarity: Familiarity | None,
    hanging: Hanging | None,
    decoded: Radiograph | Grey,
) -> tuple[Radiograph, View, list[str]]:
    """A file's line integrals, its view, and what was assumed of that. Raises BadInput where that is in doubt."""
    told = decoded.view
    if isinstance(decoded, Radiograph):
        view, facts = _known_view(file, given, told if decoded.hung or given is None else None)
        return decoded, view, facts
    if hanging is not None:
        view, facts = _known_view(file, given, told)
        return decoded.hung(hanging).line_integrals(view.lateral), view, facts
    guessed = guess(decoded, familiarity) if familiarity else None
    if given is None and told is None and guessed is not None:
        view = guessed.view
        if not guessed.sure:
            raise BadInput(file, f"does not say its view; it may be {view.name}", SAY_VIEW)
        decoded, facts = decoded.hung(guessed.hanging), [f"view {view.name} by its looks"]
    else:
        view, facts = _known_view(file, given, told)
        looks = Hanging() if guessed is None else guessed.hanging
        if looks.quarter_turns and guessed is not None and guessed.sure:
            facts.append(f"but it looks as it should when it is {looks}")
        elif looks.inverted:
            decoded = decoded.hung(Hanging(inverted=True))
    return decoded.line_integrals(view.lateral), view, facts


def _known_view(file: Path, given: View | None, told: View | None) -> tuple[View, list[str]]:
    """The view given, or told by the file, and what to say of it. Raises BadInput if there is none, or they differ."""
    if given is None and told is None:
        raise BadInput(file, "does not say its view", SAY_VIEW)
    if given is not None and told is not None and given.lateral != told.lateral:
        problem = f"DICOM says it is of view {told.name}, not {given.name}"
        raise BadInput(file, problem, "give --views in the order of the files")
    if given is not None:
        return given, []
    assert told is not None
    return told, [f"view {told.name} as the file says"]


def _crop_or_pad(image: np.ndarray, pixels: int) -> np.ndarray:
    """About the centre, with air where there was no detector."""
    missing = pixels - image.shape[0]
    before = abs(missing) // 2
    if missing >= 0:
        return np.pad(image, (before, missing - before))
    return image[before : before + pixels, before : before + pixels]


def _resized(image: np.ndarray, pixels: int) -> np.ndarray:
    if image.shape[0] == pixels:
        return image
    resample = sitk.ResampleImageFilter()
    source = sitk.GetImageFromArray(image)
    scale = image.shape[0] / pixels
    resample.SetSize((pixels, pixels))
    resample.SetOutputSpacing((scale, scale))
    resample.SetOutputOrigin(((scale - 1) / 2,) * 2)
    resample.SetInterpolator(sitk.sitkLinear)
    # Outside of the outermost pixel centres the nearest pixel holds.
    resample.UseNearestNeighborExtrapolatorOn()
    array: np.ndarray = sitk.GetArrayFromImage(resample.Execute(source))
    return array
