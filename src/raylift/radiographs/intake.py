"""Radiographs of any kind to a set of X-rays as a known unit would have taken them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from raylift.errors import BadInput
from raylift.geometry import Geometry, View
from raylift.images.xray_set import XraySet, describe_geometry
from raylift.radiographs import Grey, Orientation, Radiograph
from raylift.radiographs.checks import MAX_PIXELS, MIN_EDGE
from raylift.radiographs.orientation import guess
from raylift.radiographs.out_of_distribution import OODDetector
from raylift.radiographs.read import decode

SAY_VIEW = "say it with --views, like pa,lateral-left"


def read_radiographs(
    files: Sequence[str | Path],
    views: Sequence[View | None] | None,
    geometry: Geometry,
    *,
    any_unit: bool = False,
    ood_detector: OODDetector | None = None,
    orientations: Sequence[Orientation | None] | None = None,
    decoded: Sequence[Radiograph | Grey] | None = None,
) -> XraySet:
    """Read radiographs taken with a known or assumed unit onto its detector.

    A file that says its pixel spacing is cropped or padded to the detector's size about its centre; any other is
    taken to show the detector from edge to edge. Pictures and DICOM radiographs are oriented for reading, so that their
    views in the set are the oriented ones of the angles given, like 180° mirrored for 180°; line integrals keep theirs.

    Args:
        files: X-ray images, as `read_radiograph` takes them.
        views: one per file; where there is none, what the file says, or looks like.
        geometry: X-ray unit that is assumed; its pixels are not used.
        any_unit: take the source's distances from the files instead, where they all say the same.
        ood_detector: what X-rays look like: by it pictures are found to have dark bones, and their views guessed.
        orientations: one per file, that turns it for reading; None to leave that to its looks.
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
    known = zip(files, views or nothing, orientations or nothing, decoded or nothing, strict=True)
    for file, given, orientation, content in known:
        radiograph, view, facts = _understood(Path(file), given, ood_detector, orientation, content or decode(file))
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
        taken.append(view.oriented if radiograph.oriented else view)
        distances.append(radiograph.distances)
        notes.append(", ".join([f"{Path(file).name}: {radiograph.note}", *facts]))
    told = set(distances) if any_unit and not geometry.parallel else {None}
    if len(told) == 1 and (told_by_all := told.pop()) is not None:
        geometry = replace(geometry, sad=told_by_all[0], sdd=told_by_all[1])
        notes.append(f"the files say the unit: {describe_geometry(geometry)}")
    else:
        notes.append(f"the unit is taken to be that of the weights: {describe_geometry(geometry)}")
    pixels = max(image.shape[0] for image in images)
    same = [_resized(image, pixels) for image in images]
    return XraySet(np.stack(same), tuple(taken), geometry.with_pixels(pixels), None, tuple(notes))


def _understood(
    file: Path,
    given: View | None,
    ood_detector: OODDetector | None,
    orientation: Orientation | None,
    decoded: Radiograph | Grey,
) -> tuple[Radiograph, View, list[str]]:
    """A file's line integrals, its view, and what was assumed of that. Raises BadInput where that is not certain."""
    told = decoded.view
    if isinstance(decoded, Radiograph):
        view, facts = _known_view(file, given, told if decoded.oriented or given is None else None)
        return decoded, view, facts
    if orientation is not None:
        view, facts = _known_view(file, given, told)
        return decoded.oriented(orientation).line_integrals(view.lateral), view, facts
    guessed = guess(decoded, ood_detector) if ood_detector else None
    if given is None and told is None and guessed is not None:
        view = guessed.view
        if not guessed.sure:
            raise BadInput(file, f"does not say its view; it may be {view.name}", SAY_VIEW)
        decoded, facts = decoded.oriented(guessed.orientation), [f"view {view.name} by its looks"]
    else:
        view, facts = _known_view(file, given, told)
        looks = Orientation() if guessed is None else guessed.orientation
        if looks.quarter_turns and guessed is not None and guessed.sure:
            facts.append(f"but it looks as it should when it is {looks}")
        elif looks.inverted:
            decoded = decoded.oriented(Orientation(inverted=True))
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
