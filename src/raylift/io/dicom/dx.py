"""Build DICOM digital radiographs whose pixels are mapped to line integrals: PS3.3 A.26."""

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
MOST_STORED = 2**16 - 1
# PatientOrientation's letters for the positive and the negative direction of the axes x, y and z.
LETTERS = (("L", "R"), ("P", "A"), ("H", "F"))


def primary_angle(view: View) -> float:
    """Return a view's PositionerPrimaryAngle: the detector's in (-180, 180]°, from the patient's front to the left."""
    angle = (view.angle - 180) % 360
    return angle - 360 if angle > 180 else angle


def view_at(primary: float) -> float:
    """Return a view's angle in [0, 360)° from its PositionerPrimaryAngle."""
    return (primary + 180) % 360


def orientation(direction: np.ndarray) -> str:
    """Return the PatientOrientation of a direction (x, y, z), larger component first, such as "L", "LP" or "F"."""
    parts = sorted(
        ((abs(x), positive if x > 0 else negative) for x, (positive, negative) in zip(direction, LETTERS, strict=True)),
        reverse=True,
    )
    return "".join(letter for size, letter in parts if size > 0.1)


def digital_xray(image: np.ndarray, view: View, geometry: Geometry, study: Study, series: str, index: int) -> Dataset:
    """Return a radiograph of line integrals as a DICOM dataset that can be saved.

    Args:
        image: ∫μ dl (rows, columns), dimensionless and not negative; stored in steps of 1/65535 of the largest value.
        view: a view without turn and shift, which DICOM cannot describe.
        geometry: the source and the detector.
        study: the study of the image.
        series: the UID of the series.
        index: the number of the image in the series, from 1.
    """
    dataset = study.instance(DigitalXRayImageStorageForProcessing, series, 1, index, "DX", "X-rays computed from a CT")
    dataset.PresentationIntentType, dataset.ImageType = "FOR PROCESSING", ["DERIVED", "SECONDARY"]
    dataset.PatientOrientation = [orientation(view.u), orientation(view.v)]
    dataset.ImageLaterality = "U"
    dataset.AnatomicRegionSequence = [CodedConcept.from_code(codes.SCT.Chest)]
    dataset.AcquisitionContextSequence = []
    dataset.DetectorType, dataset.PositionerType = "DIRECT", "CARM"
    dataset.PositionerPrimaryAngle, dataset.PositionerSecondaryAngle = decimal(primary_angle(view)), 0
    if not geometry.parallel:
        dataset.DistanceSourceToDetector, dataset.DistanceSourceToPatient = decimal(geometry.sdd), decimal(geometry.sad)
        dataset.EstimatedRadiographicMagnificationFactor = decimal(geometry.sdd / geometry.sad)
    dataset.ImagerPixelSpacing = [decimal(geometry.pitch)] * 2

    slope = max(float(image.max()), 1e-6) / MOST_STORED
    stored = np.rint(np.clip(image / slope, 0, MOST_STORED)).astype("<u2")
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LOG", -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.RealWorldValueMappingSequence = [
        RealWorldValueMapping(
            lut_label=LINE_INTEGRALS,
            lut_explanation="Line integral of attenuation, natural logarithm",
            unit=codes.UCUM.NoUnits,
            value_range=(0, MOST_STORED),
            slope=slope,
            intercept=0.0,
        )
    ]
    dataset.PixelData = stored.tobytes()
    return dataset
