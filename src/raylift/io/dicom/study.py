"""The study and the patient of the DICOM files that Raylift writes, and their marks as computed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import highdicom
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from raylift.about import __version__
from raylift.errors import BadInput, WrongUsage
from raylift.io.dicom.files import read_dicom_file

MANUFACTURER = "Raylift"
NOTICE = "Computed by Raylift. Research only; not for diagnosis or treatment."


def new_uid() -> str:
    """Return a new globally unique DICOM UID."""
    return str(highdicom.UID())


@dataclass(frozen=True)
class Study:
    """The DICOM study of the series of one reconstruction.

    Args:
        sources: headers of the radiographs whose patient and study the series keep. Without any, the series get a new
            study and a new patient, as the basic profile of PS3.15 demands: no name, no date and no UID of the
            radiographs.
        uid: the UID of the study; that of the sources if there are any.
        frame: the UID of the frame of reference, the coordinate system that all series share.
    """

    sources: tuple[Dataset, ...] = ()
    uid: str = field(default_factory=new_uid)
    frame: str = field(default_factory=new_uid)

    @classmethod
    def of(cls, files: Sequence[Path]) -> Study:
        """Return a study that keeps the patient and the study of DICOM radiographs; other files are ignored.

        Raises:
            WrongUsage: none of the files is a DICOM file.
            BadInput: the files belong to different patients.
        """
        headers = {file: header for file in files if (header := read_dicom_file(file)) is not None}
        if not headers:
            raise WrongUsage("--keep-identity: none of the X-rays is a DICOM file, which would hold an identity")
        patients = {
            (str(header.get("PatientID") or ""), str(header.get("PatientName") or "")) for header in headers.values()
        }
        if len(patients) > 1:
            names = ", ".join(str(file) for file in headers)
            raise BadInput(
                names, "X-rays of different patients", "give X-rays of one patient, or leave out --keep-identity"
            )
        first = next(iter(headers.values()))
        return cls(tuple(headers.values()), str(first.get("StudyInstanceUID") or new_uid()))

    def instance(
        self, sop_class: str, series: str, number: int, index: int, modality: str, description: str
    ) -> highdicom.SOPClass:
        """Return an image without pixels, with the modules of patient, study, series, equipment and SOP.

        Args:
            sop_class: the UID of the SOP class.
            series: the UID of the series.
            number: the number of the series in the study, from 1.
            index: the number of the image in the series, from 1.
            modality: CT or DX.
            description: the description of the series, at most 64 characters.
        """
        first = self.sources[0] if self.sources else None
        label = f"RAYLIFT-{hashlib.sha256(self.uid.encode()).hexdigest()[:12].upper()}"  # archives sort patients by it
        dataset = highdicom.SOPClass(
            study_instance_uid=self.uid,
            series_instance_uid=series,
            series_number=number,
            sop_instance_uid=new_uid(),
            sop_class_uid=sop_class,
            instance_number=index,
            modality=modality,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MANUFACTURER,
            software_versions=__version__,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            patient_id=label,
            patient_name=f"{label}^",
            series_description=description,
        )
        if first is None:
            _mark_anonymous(dataset)
        else:
            if "SpecificCharacterSet" in first:
                dataset.SpecificCharacterSet = first.SpecificCharacterSet
            dataset.copy_patient_and_study_information(first)
            dataset.StudyInstanceUID = self.uid
            dataset.SourceImageSequence = [_reference(source) for source in self.sources]
        dataset.BodyPartExamined = "CHEST"
        dataset.DerivationDescription = dataset.ImageComments = NOTICE
        dataset.BurnedInAnnotation, dataset.LossyImageCompression = "NO", "00"
        return dataset


def decimal(value: float) -> DSfloat:
    """Return a number as a DICOM decimal string, which has at most 16 characters."""
    return DSfloat(float(value), auto_format=True)


def _mark_anonymous(dataset: Dataset) -> None:
    """Mark a dataset as one without the patient's identity, and remove the dates that highdicom set."""
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "Nothing of the X-rays' headers is taken over"
    dataset.DeidentificationMethodCodeSequence = [
        CodedConcept.from_code(codes.DCM.BasicApplicationConfidentialityProfile)
    ]
    dataset.LongitudinalTemporalInformationModified = "REMOVED"
    dataset.ContentDate = dataset.ContentTime = None
    del dataset.InstanceCreationDate, dataset.InstanceCreationTime


def _reference(source: Dataset) -> Dataset:
    """Return an item of SourceImageSequence that refers to a radiograph."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)]
    return item
