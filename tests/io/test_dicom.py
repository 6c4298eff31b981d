"""DICOM series come back as they were, say that they were computed, and know nobody unless they are asked to."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest

from radiograph_files import grey, write_dicom
from raylift.errors import BadInput, WrongUsage
from raylift.geometry import Geometry, View, VolumeGrid
from raylift.images.volume import Volume
from raylift.io.dicom import Study, digital_xray, new_uid, write_ct
from raylift.io.dicom.dx import orientation, primary_angle
from raylift.io.volumes import read_volume
from raylift.radiographs import read_radiograph

UNIT = Geometry(1600, 1800, 430, 64)
PATIENT = {"PatientID": "12345", "PatientName": "Doe^Jane", "PatientBirthDate": "19700101", "StudyDate": "20200202"}


def volume() -> Volume:
    """Without symmetry, at no round place, turned."""
    array = np.random.default_rng(0).uniform(-1000, 1000, (5, 6, 7)).astype(np.float32)
    turn = np.radians(20)
    cosine, sine = float(np.cos(turn)), float(np.sin(turn))
    direction = (cosine, -sine, 0.0, sine, cosine, 0.0, 0.0, 0.0, 1.0)
    return Volume(array, VolumeGrid(array.shape, (2.5, 1.25, 5.0), (-150.123456789, 33.3, -1204.7), direction))


def written(folder: Path, study: Study | None = None) -> list[pydicom.Dataset]:
    write_ct(volume(), folder, study or Study(), 1, "A volume", [(40.0, 400.0)])
    return [pydicom.dcmread(file) for file in sorted(folder.iterdir())]


def radiograph(path: Path, **attributes: object) -> Path:
    return write_dicom(path, grey(16) // 16, StudyInstanceUID="1.2.3", **(PATIENT | attributes))


def test_a_series_comes_back(tmp_path: Path) -> None:
    written(tmp_path / "series")
    found, expected = read_volume(tmp_path / "series"), volume()
    np.testing.assert_array_equal(found.array, np.rint(expected.array))
    np.testing.assert_allclose(found.grid.index_to_world, expected.grid.index_to_world, atol=1e-6)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs Debian's dicom3tools")
def test_the_standards_own_checker_has_no_errors(tmp_path: Path) -> None:
    source = Study.of([radiograph(tmp_path / "a.dcm", SOPClassUID=pydicom.uid.ComputedRadiographyImageStorage)])
    written(tmp_path / "anonymous")
    written(tmp_path / "known", source)
    xray = digital_xray(np.ones((64, 64)), View(33), UNIT, Study(), new_uid(), 1)
    xray.save_as(tmp_path / "xray.dcm", enforce_file_format=True)
    for file in (*tmp_path.glob("*/0003.dcm"), tmp_path / "xray.dcm"):
        said = subprocess.run(["dciodvfy", file], capture_output=True, text=True, check=False)
        assert "Error" not in said.stderr, (file, said.stderr)


@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="needs Debian's dcm2niix")
def test_dcm2niix_finds_the_same_volume(tmp_path: Path) -> None:
    written(tmp_path / "series")
    (tmp_path / "nifti").mkdir()
    subprocess.run(
        ["dcm2niix", "-f", "v", "-o", tmp_path / "nifti", tmp_path / "series"], check=True, capture_output=True
    )
    found, expected = read_volume(tmp_path / "nifti" / "v.nii"), volume()
    # It may store axes in another order; in the world, both are the same.
    again = found.resample(expected.grid, smooth=False)
    np.testing.assert_allclose(again.array[1:-1, 1:-1, 1:-1], expected.array[1:-1, 1:-1, 1:-1], atol=1)


def test_it_says_that_it_was_computed_and_of_nobody(tmp_path: Path) -> None:
    files = written(tmp_path / "series")
    first = files[0]
    assert first.ImageType[0] == "DERIVED"
    assert "not for diagnosis" in first.DerivationDescription
    assert first.Manufacturer == "Raylift"
    assert first.PatientIdentityRemoved == "YES"
    assert first.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    dated = [element.keyword for element in first.iterall() if element.VR in ("DA", "TM", "DT") and element.value]
    assert dated == []
    assert len({one.SOPInstanceUID for one in files}) == len(files)
    assert {one.SeriesInstanceUID for one in files} == {first.SeriesInstanceUID}
    other = written(tmp_path / "another")[0]
    for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        assert other[keyword].value != first[keyword].value


def test_volume_and_uncertainty_share_study_and_space(tmp_path: Path) -> None:
    study = Study()
    one, other = written(tmp_path / "volume", study)[0], written(tmp_path / "uncertainty", study)[0]
    assert (one.StudyInstanceUID, one.FrameOfReferenceUID, one.PatientID) == (
        other.StudyInstanceUID,
        other.FrameOfReferenceUID,
        other.PatientID,
    )
    assert one.SeriesInstanceUID != other.SeriesInstanceUID


def test_identity_is_carried_where_it_is_asked_for(tmp_path: Path) -> None:
    files = [radiograph(tmp_path / "a.dcm"), radiograph(tmp_path / "b.dcm", ViewPosition="LL")]
    made = written(tmp_path / "series", Study.of([*files, tmp_path / "none.png"]))[0]
    assert {keyword: str(made[keyword].value) for keyword in PATIENT} == PATIENT
    assert made.StudyInstanceUID == "1.2.3"
    assert "PatientIdentityRemoved" not in made
    sources = {item.ReferencedSOPInstanceUID for item in made.SourceImageSequence}
    assert sources == {pydicom.dcmread(file).SOPInstanceUID for file in files}


def test_identity_of_whom(tmp_path: Path) -> None:
    with pytest.raises(WrongUsage, match="none of the X-rays is a DICOM file"):
        Study.of([tmp_path / "a.png"])
    with pytest.raises(BadInput, match="different patients"):
        Study.of([radiograph(tmp_path / "a.dcm"), radiograph(tmp_path / "b.dcm", PatientID="54321")])


@pytest.mark.parametrize("view", [View(0), View(90), View(180, True), View(200), View(315, True)])
def test_line_integrals_keep_values_view_and_unit(tmp_path: Path, view: View) -> None:
    image = np.random.default_rng(1).uniform(0, 9, (64, 64)).astype(np.float32)
    digital_xray(image, view, UNIT, Study(), new_uid(), 1).save_as(tmp_path / "xray.dcm", enforce_file_format=True)
    found = read_radiograph(tmp_path / "xray.dcm")
    np.testing.assert_allclose(found.image, image, atol=1e-4)
    assert found.view == view
    assert not found.oriented
    assert found.distances == (1600, 1800)
    assert found.pixel_mm == pytest.approx(UNIT.pitch)


def test_angles_and_directions_are_dicoms() -> None:
    # PS3.3 C.8.7.5.1.2: 0 is the detector in front, +90 the detector at the patient's left.
    assert [primary_angle(View.parse(name)) for name in ("pa", "ap", "lateral-left", "lateral-right")] == [
        0,
        180,
        90,
        -90,
    ]
    assert [orientation(View.parse(name).u) for name in ("ap", "pa", "lateral-right", "lateral-left")] == list("LLPP")
    assert orientation(View(30).u) == "LP"
    assert orientation(View(0).v) == "F"


def test_other_mappings_of_pixels_are_no_line_integrals(tmp_path: Path) -> None:
    made = digital_xray(np.ones((64, 64)), View(0), UNIT, Study(), new_uid(), 1)
    made.RealWorldValueMappingSequence[0].RealWorldValueSlope = 1e6
    made.save_as(tmp_path / "xray.dcm", enforce_file_format=True)
    with pytest.raises(BadInput, match="line integrals lie between 0 and about 10"):
        read_radiograph(tmp_path / "xray.dcm")
