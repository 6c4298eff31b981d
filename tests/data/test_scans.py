"""What of a folder is a scan, and what is said of the rest."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.fileset import FileSet
from pydicom.uid import generate_uid

from dicom_files import ct_slice
from object_store import dicom_series
from raylift.data.phantom import thorax_phantom
from raylift.data.scans import ScanSearch, find_scans, patient_of, search_scans
from raylift.errors import BadInput
from raylift.images.volume import Volume
from raylift.io.dicom import archive
from raylift.io.volumes import read_volume


@pytest.fixture(scope="module")
def small() -> Volume:
    """A phantom of few voxels."""
    return thorax_phantom(0, 10.0)


def write(folder: Path, volume: Volume, names: str = "{}.dcm") -> Path:
    folder.mkdir(parents=True)
    for number, content in enumerate(dicom_series(volume, generate_uid())):
        (folder / names.format(number)).write_bytes(content)
    return folder


def packed(path: Path, folder: Path, inside: str = "CT/") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for one in sorted(folder.iterdir()):
            file.write(one, f"{inside}{one.name}")
    return path


def test_scans_by_content_and_the_rest_by_name(tmp_path: Path, small: Volume) -> None:
    cohort = tmp_path / "cohort"
    write(cohort / "uids", small, "CT.1.2.840.113619.2.55.{}")
    write(cohort / "endings", small, "{}.dicom")
    elsewhere = write(tmp_path / "store" / "linked", small)
    (cohort / "linked").symlink_to(elsewhere)
    (cohort / "gone").symlink_to(tmp_path / "nowhere")
    (cohort / "again").symlink_to(cohort / "uids")
    (cohort / "above").symlink_to(tmp_path)
    packed(cohort / "packed.zip", elsewhere)
    (cohort / "report.pdf").write_bytes(b"%PDF-1.4")
    (cohort / "photos").mkdir()
    for k in range(7):
        (cohort / "photos" / f"{k}.png").touch()
    disk = FileSet()
    for number, file in enumerate(write(tmp_path / "for-disk", small).iterdir(), 1):
        dataset = pydicom.dcmread(file)
        dataset.PatientID = dataset.PatientName = dataset.StudyID = "1"
        dataset.StudyDate, dataset.StudyTime, dataset.SeriesNumber, dataset.InstanceNumber = "20200101", "0", 1, number
        disk.add(dataset)
    disk.write(cohort / "disk")
    search = search_scans(cohort)
    names = list(search.scans)
    assert names[1:] == ["endings", "linked", "packed", "uids"]
    assert names[0].startswith("disk_")
    assert search.left_out == {"gone": "a link that leads nowhere"}
    assert search.no_scans == {
        "above": "a link to a folder that is searched anyway",
        "again": "a link to a folder that is searched anyway",
        "photos/*.png": "7 files, no scans",
        "report.pdf": "no scan",
    }
    for scan in search.scans.values():
        volume = read_volume(Path(str(scan)))
        assert np.array_equal(volume.array, small.array)


def test_links_in_circles_end(tmp_path: Path, small: Volume) -> None:
    write(tmp_path / "a" / "series", small)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "back").symlink_to(tmp_path / "a")
    (elsewhere / "itself").symlink_to(elsewhere)
    (tmp_path / "a" / "out").symlink_to(elsewhere)
    assert list(find_scans(tmp_path / "a")) == ["series"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_an_unreadable_folder_is_left_out_by_name(tmp_path: Path, small: Volume) -> None:
    write(tmp_path / "a", small)
    (tmp_path / "b").mkdir(mode=0)
    assert search_scans(tmp_path).left_out == {"b": "cannot be read (Permission denied)"}


def test_an_unlistable_folder_is_left_out_by_name(
    tmp_path: Path, small: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a", small)
    (tmp_path / "b").mkdir()
    scandir = os.scandir

    def denied(path: str) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert search_scans(tmp_path).left_out == {"b": "cannot be read (Permission denied)"}


def test_the_reason_is_said_where_there_is_no_scan(tmp_path: Path) -> None:
    (tmp_path / "case").symlink_to(tmp_path / "nowhere")
    with pytest.raises(BadInput, match=r"no CT scans in it \(case: a link that leads nowhere\)"):
        search_scans(tmp_path)


def test_what_begins_like_dicom_without_preamble_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "x.nii.gz").touch()
    (tmp_path / "table.bin").write_bytes(b"\x08\x00" + bytes(range(200)))
    assert search_scans(tmp_path) == ScanSearch({"x": tmp_path / "x.nii.gz"}, {}, {"table.bin": "no scan"})


def test_patients_of_folders_files_and_archives(tmp_path: Path) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    for k in range(3):
        ct_slice(np.zeros((8, 8), int), (0, 0, k), (1, 1, 1), "1.2.3", PatientID="someone").save_as(
            folder / f"{k}", enforce_file_format=True
        )
    digest = patient_of(folder)
    assert len(digest) == 16
    assert patient_of(folder / "1") == digest
    assert patient_of(packed(tmp_path / "series.zip", folder)) == digest


# --- Archives -------------------------------------------------------------------------------------------------------


def test_names_in_an_archive_lead_nowhere(tmp_path: Path, small: Volume) -> None:
    folder = write(tmp_path / "series", small)
    volume = read_volume(packed(tmp_path / "a.zip", folder, "../../../../tmp/evil/"))
    assert np.array_equal(volume.array, small.array)
    assert not Path("/tmp/evil").exists()


@pytest.mark.parametrize(
    ("limit", "value", "problem"),
    [("MOST_FILES", 3, "files in one archive"), ("MOST_BYTES", 1000, "GB unpacked")],
)
def test_an_archive_has_limits(
    tmp_path: Path, small: Volume, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, problem: str
) -> None:
    path = packed(tmp_path / "a.zip", write(tmp_path / "series", small))
    monkeypatch.setattr(archive, limit, value)
    with pytest.raises(BadInput, match=rf"a\.zip: .*{problem}"):
        read_volume(path)


def test_a_file_that_unpacks_to_far_more(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x.dcm", b"\0" * 128 + b"DICM" + bytes(2**24))
    with pytest.raises(BadInput, match=r"bomb\.zip: x\.dcm in it unpacks to 16 MB"):
        read_volume(tmp_path / "bomb.zip")


def test_no_dicom_in_an_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("readme.txt", "text")
    with pytest.raises(BadInput, match="an archive without DICOM files"):
        read_volume(tmp_path / "a.zip")


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_cut_archive(tmp_path: Path, small: Volume, share: float) -> None:
    path = packed(tmp_path / "a.zip", write(tmp_path / "series", small))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BadInput, match=r"a\.zip: cannot be unpacked"):
        read_volume(path)


def test_what_is_wrong_in_an_archive_is_said_of_the_archive(tmp_path: Path, small: Volume) -> None:
    folder = write(tmp_path / "series", small)
    (folder / "3.dcm").unlink()
    with pytest.raises(BadInput, match=r"a\.zip: slice gaps from") as error:
        read_volume(packed(tmp_path / "a.zip", folder))
    assert "scratch" not in str(error.value)
