"""Radiographs in DICOM files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from raylift.errors import BadInput
from raylift.geometry import View
from raylift.io.dicom import LINE_INTEGRALS
from raylift.io.dicom.files import read_dicom_file
from raylift.io.dicom.pixels import check_decodable, stored_values
from raylift.radiographs.checks import check_line_integrals, check_size, describe_damage
from raylift.radiographs.dicom_geometry import detector_plane, reading_orientation, view_of_line_integrals
from raylift.radiographs.field import continued
from raylift.radiographs.radiograph import Radiograph, square
from raylift.radiographs.shutters import open_part
from raylift.radiographs.tone import Grey, Orientation

# View names by DICOM's ViewPosition; other values are ignored. A lateral without a side is taken for a left lateral.
POSITIONS = {
    "AP": "ap",
    "PA": "pa",
    "LL": "lateral-left",
    "RL": "lateral-right",
    "LAT": "lateral-left",
    "LATERAL": "lateral-left",
}
# DICOM's modalities of projection images, and those of images whose modality was lost.
MODALITIES = ("CR", "DX", "RG", "RF", "XA", "OT", "")
TO_AXIS = ("XA", "RF")  # modalities whose DistanceSourceToPatient is that to the axis
OPEN = 99.5  # percentile of the raw values that is taken for the open field
LEAST_TRANSMISSION = 1e-4  # share of the open field to which smaller raw values are raised


def read_dicom(path: Path) -> Radiograph | Grey:
    """Read the line integrals or the grey levels of a DICOM file; see `raylift.radiographs.read_radiograph`.

    Returns:
        A `Radiograph` where the file holds line integrals or raw detector values, or else its `Grey` levels.

    Raises:
        BadInput: the file is damaged, or is no single grey radiograph.
    """
    try:
        dataset = read_dicom_file(path)
        if dataset is None:
            raise BadInput(path, "not a DICOM file", "copy or export it again")
        _check(path, dataset)
        return _interpret(path, dataset)
    except BadInput:
        raise
    except Exception as error:  # decoders fail on damaged files in more ways than they document
        raise BadInput(path, *describe_damage(error)) from None


def _interpret(path: Path, dataset: Dataset) -> Radiograph | Grey:
    """Return the content of a file that holds one grey radiograph.

    Raises:
        BadInput: no pixel is exposed, or the file contradicts itself.
    """
    stored, padding = stored_values(dataset)
    opened = open_part(dataset)
    exposed = opened if padding is None else opened & ~padding
    if not exposed.any():
        raise BadInput(path, "all pixels are padding, or behind a shutter", "export it again")
    facts = [] if padding is None else ["padding left out"]
    facts += [] if opened.all() else ["left out what lies behind the collimator or the shutter"]
    mapping = _mapping(dataset)
    plane, notes = detector_plane(path, dataset, mapping is not None or str(dataset.get("Modality")) in TO_AXIS)
    if mapping is not None:
        image = stored * float(mapping.RealWorldValueSlope) + float(mapping.RealWorldValueIntercept)
        image = continued(image.astype(np.float32), exposed)
        check_line_integrals(path, image)
        note = ", ".join(["line integrals, as declared by the file", *facts, *notes])
        return Radiograph(square(image), note=note, view=view_of_line_integrals(dataset), **plane._asdict())
    position = str(dataset.get("ViewPosition") or "").upper()
    view = View.parse(POSITIONS[position]) if position in POSITIONS else None
    facts = [f"DICOM view {position}" if position else "", *facts, *notes]
    if raw := _is_raw(dataset):
        grey = _logarithm(stored, exposed)
    else:
        grey = apply_voi_lut(apply_modality_lut(stored, dataset), dataset).astype(np.float32)
        # INVERSE goes with MONOCHROME1 and says the same; where the two disagree, the newer attribute wins.
        shape = dataset.get("PresentationLUTShape")
        if shape == "INVERSE" if shape else dataset.PhotometricInterpretation == "MONOCHROME1":
            grey = grey[exposed].max() - grey
            facts.append("inverted, as declared in DICOM")
        grey[~exposed] = grey[exposed].min()
    turns, mirrored, changes = reading_orientation(dataset.get("PatientOrientation") or [])
    orientation = Orientation(turns, mirrored)
    grey, exposed = orientation.turn(grey), orientation.turn(exposed)
    if plane.placement is not None:
        plane = plane._replace(placement=plane.placement.turned(turns, mirrored))
    facts = [fact for fact in (*facts, changes) if fact]
    if not raw:
        return Grey(path, grey, facts=tuple(facts), view=view, polarity_known=True, exposed=exposed, **plane._asdict())
    check_line_integrals(path, grey)
    note = "line integrals, computed as the logarithm of the open field over the raw detector values"
    return Radiograph(square(grey), note=", ".join([note, *facts]), oriented=True, view=view, **plane._asdict())


def _check(path: Path, dataset: Dataset) -> None:
    """Check that a file holds one grey radiograph that can be decoded.

    Raises:
        BadInput: it does not.
    """
    modality = str(dataset.get("Modality") or "")
    if modality not in MODALITIES:
        raise BadInput(path, f"a DICOM file of modality {modality}", "give a radiograph (CR or DX)")
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise BadInput(path, f"{dataset.NumberOfFrames} frames in one file", "export a single image")
    if "PixelData" not in dataset:
        raise BadInput(path, "a DICOM file without an image", "give a radiograph (CR or DX)")
    if dataset.SamplesPerPixel != 1:
        raise BadInput(path, "a colour DICOM image", "give a greyscale radiograph")
    if dataset.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2"):
        kind = str(dataset.PhotometricInterpretation)[:20]
        raise BadInput(path, f"pixels that are {kind}, not grey", "give a greyscale radiograph")
    check_size(path, dataset.Rows, dataset.Columns)
    try:
        check_decodable(dataset)
    except ValueError as error:
        raise BadInput(path, str(error), "export it uncompressed") from None


def _mapping(dataset: Dataset) -> Dataset | None:
    """Return the item that maps stored values to line integrals; None where the file has none."""
    items = dataset.get("RealWorldValueMappingSequence") or []
    return next((item for item in items if item.get("LUTLabel") == LINE_INTEGRALS), None)


def _is_raw(dataset: Dataset) -> bool:
    """Return whether pixels are raw detector values, proportional to the exposure."""
    keywords = ("PresentationIntentType", "PixelIntensityRelationship", "PixelIntensityRelationshipSign")
    return [str(dataset.get(keyword)) for keyword in keywords] == ["FOR PROCESSING", "LIN", "1"]


def _logarithm(raw: np.ndarray, exposed: np.ndarray) -> np.ndarray:
    """Return ln(I₀ / I) of raw values I (rows, columns), where I₀ is the open field, the brightest part exposed.

    Beyond the exposed pixels the nearest exposed value holds.
    """
    open_field = max(float(np.percentile(raw[exposed], OPEN)), 1.0)
    transmission = np.clip(raw / open_field, LEAST_TRANSMISSION, 1)
    return continued(-np.log(transmission).astype(np.float32), exposed)
