"""X-rays as DICOM digital radiographs whose pixels say what line integrals they stand for: PS3.3 A.26."""

from __future__ import annotations

import numpy as np
from highdicom.pm import RealWorldValueMapping
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import DigitalXRayImageStorageForProcessing

from raylift.geometry import Geometry, View
from raylift.io.dicom.study import Study, decimal

LINE_INTEGRALS = "LINE_INTEGRAL"  # label of the mapping of pixels to ∫μ dl
LEVELS = 2**16 - 1
# Letters of PatientOrientation along the patient's axes.
LETTERS = (("L", "R"), ("P", "A"), ("H", "F"))


def primary_angle(view: View) -> float:
    """PositionerPrimaryAngle in (-180, 180]: of the detector, from the patient's front towards the left."""
    angle = (view.angle - 180) % 360
    return angle - 360 if angle > 180 else angle


def view_at(primary: float) -> float:
    """The view's angle of a PositionerPrimaryAngle."""
    return (primary + 180) % 360


def orientation(direction: np.ndarray) -> str:
    """PatientOrientation of a direction (x, y, z): its larger part first, as "L", "LP" or "F"."""
    parts = sorted(
        ((abs(x), positive if x > 0 else negative) for x, (positive, negative) in zip(direction, LETTERS, strict=True)),
        reverse=True,
    )
    return "".join(letter for size, letter in parts if size > 0.1)


def digital_xray(image: np.ndarray, view: View, unit: Geometry, study: Study, series: str, index: int) -> Dataset:
    """A radiograph of line integrals, ready to be saved.

    Args:
        image: ∫μ dl (rows, columns) without unit, not negative; kept to 1/65535 of its largest.
        view: without turn and shift, which DICOM cannot say.
        unit: X-ray unit that took it.
        study: what it belongs to.
        series: UID.
        index: in the series, from 1.
    """
    made = study.instance(DigitalXRayImageStorageForProcessing, series, 1, index, "DX", "X-rays computed from a CT")
    made.PresentationIntentType, made.ImageType = "FOR PROCESSING", ["DERIVED", "SECONDARY"]
    made.PatientOrientation = [orientation(view.u), orientation(view.v)]
    made.ImageLaterality = "U"
    made.AnatomicRegionSequence = [CodedConcept.from_code(codes.SCT.Chest)]
    made.AcquisitionContextSequence = []
    made.DetectorType, made.PositionerType = "DIRECT", "CARM"
    made.PositionerPrimaryAngle, made.PositionerSecondaryAngle = decimal(primary_angle(view)), 0
    if not unit.parallel:
        made.DistanceSourceToDetector, made.DistanceSourceToPatient = decimal(unit.sdd), decimal(unit.sad)
        made.EstimatedRadiographicMagnificationFactor = decimal(unit.sdd / unit.sad)
    made.ImagerPixelSpacing = [decimal(unit.pitch)] * 2

    slope = max(float(image.max()), 1e-6) / LEVELS
    stored = np.rint(np.clip(image / slope, 0, LEVELS)).astype("<u2")
    made.Rows, made.Columns = stored.shape
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 16, 15
    made.PixelIntensityRelationship, made.PixelIntensityRelationshipSign = "LOG", -1
    made.RescaleIntercept, made.RescaleSlope, made.RescaleType = 0, 1, "US"
    made.PresentationLUTShape = "IDENTITY"
    made.RealWorldValueMappingSequence = [
        RealWorldValueMapping(
            lut_label=LINE_INTEGRALS,
            lut_explanation="Line integral of attenuation, natural logarithm",
            unit=codes.UCUM.NoUnits,
            value_range=(0, LEVELS),
            slope=slope,
            intercept=0.0,
        )
    ]
    made.PixelData = stored.tobytes()
    return made
