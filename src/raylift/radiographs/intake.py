"""Reading of radiographs of any kind as a set of X-rays on one detector."""

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
from raylift.radiographs.placement import place
from raylift.radiographs.radiograph import ImageSize
from raylift.radiographs.read import decode
from raylift.radiographs.scale import estimate_scale
from raylift.radiographs.tone_network import ToneModel

CENTRED = 0.02  # share of the detector's edge by which sizes or middles may differ without a note
STATE_VIEW = "give it with --views, as in --views pa,lateral-left"


def read_radiographs(
    files: Sequence[str | Path],
    views: Sequence[View | None] | None,
    geometry: Geometry,
    *,
    geometry_from_files: bool = False,
    ood_detector: OODDetector | None = None,
    orientations: Sequence[Orientation | None] | None = None,
    decoded: Sequence[Radiograph | Grey] | None = None,
    sizes: Sequence[ImageSize | None] | None = None,
    tone_model: ToneModel | None = None,
) -> XraySet:
    """Read radiographs onto the detector of a known or assumed geometry.

    An image with a pixel spacing lies where its file declares, or else at the detector's centre; any other is assumed
    to show the detector from edge to edge, unless its chest would then be unusually small or large. Pictures and DICOM
    radiographs are oriented for reading, and their views in the set are the oriented views of the given angles (180°
    mirrored for 180°, say); line integrals keep the given view.

    Args:
        files: X-ray images, of any format that `read_radiograph` reads.
        views: one per file; where it is None, the view that the file declares, or else the view that it looks like.
        geometry: the X-ray geometry that is assumed; its pixels are not used.
        geometry_from_files: take the source's distances from the files instead, where all files agree.
        ood_detector: recognises dark bones in pictures, and the views of pictures that have none.
        orientations: one per file, which turns it for reading; None to recognise it.
        decoded: the results of `decode`, one per file, where the files were decoded already.
        sizes: of the images on the detector, one per file; None for what the file declares.
        tone_model: recognises the tone curves of pictures; see `Grey.line_integrals`.

    Returns:
        The X-rays, all of the size of the largest; its notes say how each image was read and which geometry was
        assumed, its warnings which of them have a size that no chest has.

    Raises:
        BadInput: there are no files, or not as many views as files; a file is unusable, or has an unknown view.
    """
    if not files:
        raise BadInput("X-rays", "none", "give at least one")
    if views is not None and len(files) != len(views):
        raise BadInput(f"{len(files)} X-rays", f"{len(views)} views given", "give one view per X-ray with --views")
    unknown = [None] * len(files)
    inputs = zip(files, views or unknown, orientations or unknown, decoded or unknown, strict=True)
    read = [
        _interpret(Path(file), stated_view, ood_detector, orientation, content or decode(file), tone_model)
        for file, stated_view, orientation, content in inputs
    ]
    if sizes is not None:
        read = [
            (_with_size(radiograph, size), view, facts)
            for (radiograph, view, facts), size in zip(read, sizes, strict=True)
        ]
    geometry, geometry_note = _common_geometry([radiograph for radiograph, _, _ in read], geometry, geometry_from_files)
    images, notes, warnings = [], [], list[str]()
    set_views = tuple(view.oriented if radiograph.oriented else view for radiograph, view, _ in read)
    for file, (radiograph, _, facts), view in zip(files, read, set_views, strict=True):
        image, assumed, warning = _on_detector(file, radiograph, view, geometry, ood_detector)
        images.append(image)
        notes.append(", ".join([f"{Path(file).name}: {radiograph.note}", *facts, *assumed]))
        warnings += [f"{Path(file).name}: {warning}"] if warning else []
    if len(set(set_views)) < len(set_views):
        notes.append("several X-rays of one view: give --views where one of them is another")
    pixels = max(image.shape[0] for image in images)
    resized = [_resize(image, pixels) for image in images]
    return XraySet(
        np.stack(resized),
        set_views,
        geometry.with_pixels(pixels),
        None,
        (*notes, geometry_note),
        tuple(warnings),
        tuple(radiograph.tone for radiograph, _, _ in read),
    )


def _with_size(radiograph: Radiograph, size: ImageSize | None) -> Radiograph:
    """Return a radiograph with the size on the detector that the user gave; unchanged for None."""
    if size is None:
        return radiograph
    pixel_mm = size.pixel(radiograph.image.shape[0])
    note = f"{radiograph.note}, pixels of {pixel_mm:.3g} mm as given"
    return replace(radiograph, pixel_mm=pixel_mm, at_axis=False, note=note)


def _common_geometry(radiographs: Sequence[Radiograph], assumed: Geometry, from_files: bool) -> tuple[Geometry, str]:
    """Return the geometry of a set of radiographs, and a note on where it comes from.

    Where the files agree on the distance to the detector and declare none to an axis, the axis is as far from the
    detector as in the assumed geometry.
    """
    declared = {radiograph.distances for radiograph in radiographs} if from_files and not assumed.parallel else {None}
    agreed = declared.pop() if len(declared) == 1 else None
    if agreed is None:
        return assumed, f"X-ray geometry assumed to be that of the weights: {describe_geometry(assumed)}"
    sad, sdd = agreed
    geometry = replace(assumed, sad=sdd - (assumed.sdd - assumed.sad) if sad is None else sad, sdd=sdd)
    origin = "declared by the files" if sad is not None else "with the files' distance to the detector"
    return geometry, f"X-ray geometry {origin}: {describe_geometry(geometry)}"


def _on_detector(
    file: str | Path, radiograph: Radiograph, view: View, geometry: Geometry, ood_detector: OODDetector | None
) -> tuple[np.ndarray, list[str], str]:
    """Return a radiograph's image on the whole detector, notes on what was assumed, and a warning or "".

    Raises:
        BadInput: its pixels are implausibly small or large, or it lies beyond the detector.
    """
    if radiograph.pixel_mm is None:
        image, note = _of_usual_size(radiograph.image, view, geometry, ood_detector)
        return image, [note], ""
    pixel_mm, notes = radiograph.pixel_mm, list[str]()
    if radiograph.at_axis and not geometry.parallel:
        pixel_mm *= geometry.sdd / geometry.sad
        notes.append(f"pixel spacing in the patient, magnified by {geometry.sdd / geometry.sad:.3f}")
    edge = round(geometry.detector_mm / pixel_mm)
    if not MIN_EDGE <= edge <= math.isqrt(MAX_PIXELS):
        problem = f"pixels of {pixel_mm:g} mm on a detector of {geometry.detector_mm:g} mm"
        raise BadInput(file, problem, "give the right ones with --pixel-size")
    if radiograph.placement is None:
        down, right = 0.0, 0.0
        if abs(radiograph.image.shape[0] - edge) > CENTRED * edge:
            notes.append("taken to be centred on the detector")
    else:
        down, right = radiograph.placement.offset(geometry.detector_mm)
        if max(abs(down), abs(right)) > geometry.detector_mm / 2:
            problem = f"declares a place beyond a detector of {geometry.detector_mm:g} mm"
            raise BadInput(file, problem, "correct its FieldOfViewOrigin")
        if max(abs(down), abs(right)) > CENTRED * geometry.detector_mm:
            notes.append(f"placed on the detector as the file declares: {_direction(down, right)} of its middle")
    image, warning = place(radiograph.image, edge, round(down / pixel_mm), round(right / pixel_mm)), ""
    if ood_detector is None:
        return image, notes, warning
    scale = estimate_scale(radiograph.image, radiograph.image.shape[0] / edge, view, ood_detector)
    if scale.implausible:
        likely = pixel_mm * scale.factor
        warning = (
            f"with pixels of {pixel_mm:.3g} mm its chest has {1 / scale.factor:.1f} times the usual size; "
            f"give the right ones with --pixel-size, likely {likely:.2g} mm ({pixel_mm * scale.low:.2g} to "
            f"{pixel_mm * scale.high:.2g})"
        )
    return image, notes, warning


def _of_usual_size(
    image: np.ndarray, view: View, geometry: Geometry, ood_detector: OODDetector | None
) -> tuple[np.ndarray, str]:
    """Return an image without pixel spacing on the detector, and a note on the size that was assumed.

    That is the detector's size, unless the chest would be unusually small or large.
    """
    if ood_detector is None:
        return image, f"assumed to be {geometry.detector_mm:g} mm wide"
    scale = estimate_scale(image, 1.0, view, ood_detector)
    factor = scale.factor if scale.differs else 1.0
    low, high = (round(geometry.detector_mm * end, -1) for end in (min(scale.low, factor), max(scale.high, factor)))
    note = f"assumed to be {geometry.detector_mm * factor:.0f} mm wide ({low:.0f} to {high:.0f} fit a usual chest)"
    return place(image, round(image.shape[0] / factor)), note


def _direction(down: float, right: float) -> str:
    """Return an offset in mm in words, like "25 mm below and 10 mm to the left"."""
    parts = [
        f"{abs(offset):.0f} mm {words[offset < 0]}"
        for offset, words in ((down, ("below", "above")), (right, ("to the right", "to the left")))
        if abs(offset) >= 0.5
    ]
    return " and ".join(parts)


def _interpret(
    file: Path,
    stated_view: View | None,
    ood_detector: OODDetector | None,
    orientation: Orientation | None,
    decoded: Radiograph | Grey,
    tone_model: ToneModel | None,
) -> tuple[Radiograph, View, list[str]]:
    """Return a file's line integrals, its view, and notes on what was assumed.

    Args:
        file: the image, for messages.
        stated_view: by the user.
        ood_detector: as for `read_radiographs`.
        orientation: by the user.
        decoded: content of the file.
        tone_model: as for `read_radiographs`.

    Raises:
        BadInput: the view is not known for certain.
    """
    declared = decoded.view
    if isinstance(decoded, Radiograph):
        view, facts = _known_view(file, stated_view, declared if decoded.oriented or stated_view is None else None)
        return decoded, view, facts
    if orientation is not None:
        view, facts = _known_view(file, stated_view, declared)
        return decoded.oriented(orientation).line_integrals(view, tone_model), view, facts
    guessed = guess(decoded, ood_detector) if ood_detector else None
    if stated_view is None and declared is None and guessed is not None:
        view = guessed.view
        if not guessed.sure:
            raise BadInput(file, f"declares no view; it looks like {view.name}", STATE_VIEW)
        decoded, facts = decoded.oriented(guessed.orientation), [f"view {view.name}, recognised from the image"]
    else:
        view, facts = _known_view(file, stated_view, declared)
        if guessed is not None and guessed.sure and guessed.view.lateral != view.lateral:
            facts.append(f"but it looks {'lateral' if guessed.view.lateral else 'frontal'}")
        looks = Orientation() if guessed is None else guessed.orientation
        if looks.quarter_turns and guessed is not None and guessed.sure:
            facts.append(f"but it looks right only when {looks}")
        elif looks.inverted:
            decoded = decoded.oriented(Orientation(inverted=True))
    return decoded.line_integrals(view, tone_model), view, facts


def _known_view(file: Path, stated: View | None, declared: View | None) -> tuple[View, list[str]]:
    """Return the view that the user stated, or else the one that the file declares, with notes on it.

    Raises:
        BadInput: there is neither.
    """
    if stated is None and declared is None:
        raise BadInput(file, "declares no view", STATE_VIEW)
    if stated is not None and declared is not None and stated.lateral != declared.lateral:
        return stated, [f"view {stated.name} as given, though the file declares {declared.name}"]
    if stated is not None:
        return stated, []
    assert declared is not None
    return declared, [f"view {declared.name}, as declared by the file"]


def _resize(image: np.ndarray, pixels: int) -> np.ndarray:
    """Return a square image interpolated linearly to `pixels` × `pixels`."""
    if image.shape[0] == pixels:
        return image
    resample = sitk.ResampleImageFilter()
    source = sitk.GetImageFromArray(image)
    scale = image.shape[0] / pixels
    resample.SetSize((pixels, pixels))
    resample.SetOutputSpacing((scale, scale))
    resample.SetOutputOrigin(((scale - 1) / 2,) * 2)
    resample.SetInterpolator(sitk.sitkLinear)
    # Beyond the outermost pixel centres the value of the nearest pixel holds.
    resample.UseNearestNeighborExtrapolatorOn()
    array: np.ndarray = sitk.GetArrayFromImage(resample.Execute(source))
    return array
