"""Whose examination a DICOM file belongs to, and that it was computed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import highdicom
import pydicom
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.misc import is_dicom
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from raylift.about import __version__
from raylift.errors import BadInput, WrongUsage

MAKER = "Raylift"
NOTICE = "Computed by Raylift. Research only; not for diagnosis or treatment."


def new_uid() -> str:
    """A UID that nothing else has."""
    return str(highdicom.UID())


@dataclass(frozen=True)
class Study:
    """The examination that the series of one reconstruction belong to.

    Args:
        sources: headers of the radiographs whose patient and examination the series carry on. With none, the series
            get an examination and a patient of their own, as the basic profile of PS3.15 asks: no name, no date, no
            UID of the radiographs.
        uid: of the study; the sources' where there are any.
        frame: of reference: positions of all its series are in the same space.
    """

    sources: tuple[Dataset, ...] = ()
    uid: str = field(default_factory=new_uid)
    frame: str = field(default_factory=new_uid)

    @classmethod
    def of(cls, files: Sequence[Path]) -> Study:
        """The study of DICOM radiographs, to be carried on; other files are passed over.

        Raises:
            WrongUsage: none of the files is DICOM.
            BadInput: they are of different patients.
        """
        headers = {
            file: pydicom.dcmread(file, stop_before_pixels=True) for file in files if file.is_file() and is_dicom(file)
        }
        if not headers:
            raise WrongUsage("--keep-identity: none of the X-rays is a DICOM file, which would hold one")
        patients = {(str(one.get("PatientID") or ""), str(one.get("PatientName") or "")) for one in headers.values()}
        if len(patients) > 1:
            names = ", ".join(str(file) for file in headers)
            raise BadInput(names, "X-rays of different patients", "give those of one, or leave --keep-identity out")
        first = next(iter(headers.values()))
        return cls(tuple(headers.values()), str(first.get("StudyInstanceUID") or new_uid()))

    def instance(
        self, sop_class: str, series: str, number: int, index: int, modality: str, description: str
    ) -> highdicom.SOPClass:
        """An image without pixels: what the modules of patient, study, series, equipment and SOP hold.

        Args:
            sop_class: UID.
            series: UID.
            number: of the series in the study, from 1.
            index: of the image in the series, from 1.
            modality: CT or DX.
            description: of the series, at most 64 characters.
        """
        first = self.sources[0] if self.sources else None
        label = f"RAYLIFT-{hashlib.sha256(self.uid.encode()).hexdigest()[:12].upper()}"  # archives sort by it
        made = highdicom.SOPClass(
            study_instance_uid=self.uid,
            series_instance_uid=series,
            series_number=number,
            sop_instance_uid=new_uid(),
            sop_class_uid=sop_class,
            instance_number=index,
            modality=modality,
            manufacturer=MAKER,
            manufacturer_model_name=MAKER,
            software_versions=__version__,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            patient_id=label,
            patient_name=f"{label}^",
            series_description=description,
        )
        if first is None:
            _say_nobody(made)
        else:
            if "SpecificCharacterSet" in first:
                made.SpecificCharacterSet = first.SpecificCharacterSet
            made.copy_patient_and_study_information(first)
            made.StudyInstanceUID = self.uid
            made.SourceImageSequence = [_reference(source) for source in self.sources]
        made.BodyPartExamined = "CHEST"
        made.DerivationDescription = made.ImageComments = NOTICE
        made.BurnedInAnnotation, made.LossyImageCompression = "NO", "00"
        return made


def decimal(value: float) -> DSfloat:
    """As DICOM's decimal string, which has 16 characters."""
    return DSfloat(float(value), auto_format=True)


def _say_nobody(made: Dataset) -> None:
    """Mark a dataset into which nothing of the patient was taken over, and drop the dates that were put in."""
    made.PatientIdentityRemoved = "YES"
    made.DeidentificationMethod = "Nothing of the X-rays' headers is taken over"
    made.DeidentificationMethodCodeSequence = [CodedConcept.from_code(codes.DCM.BasicApplicationConfidentialityProfile)]
    made.LongitudinalTemporalInformationModified = "REMOVED"
    made.ContentDate = made.ContentTime = None
    del made.InstanceCreationDate, made.InstanceCreationTime


def _reference(source: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)]
    return item
