"""A cohort of twenty cases as hospitals hand it out: every good one is prepared, everything else is listed."""

import gzip
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import FileDataset
from pydicom.fileset import FileSet
from pydicom.uid import generate_uid

from commands import raylift_json
from compression import LOSSLESS, compress
from dicom_files import ct_slice, enhanced_ct
from raylift.data.phantom import thorax_phantom
from raylift.data.scans import search_scans
from raylift.images.volume import Volume
from raylift.io.volumes import read_volume, write_volume

GOOD = 20


@pytest.fixture(scope="module")
def scans() -> list[Volume]:
    return [thorax_phantom(seed, 8.0) for seed in range(GOOD)]


def slices(volume: Volume) -> list[FileDataset]:
    """The slices of a series, which has a UID of its own."""
    (x, y, z), spacing, uid = volume.grid.origin, volume.grid.spacing, generate_uid()
    return [ct_slice(plane, (x, y, z + k * spacing[2]), spacing, uid) for k, plane in enumerate(volume.array)]


def write_series(folder: Path, volume: Volume, names: str = "{}.dcm", *, preamble: bool = True) -> Path:
    folder.mkdir(parents=True)
    for number, dataset in enumerate(slices(volume)):
        path = folder / names.format(number)
        dataset.save_as(path, enforce_file_format=True)
        if not preamble:
            path.write_bytes(path.read_bytes()[132:])
    return folder


def write_media(folder: Path, volume: Volume) -> None:
    """A disk with a DICOMDIR."""
    disk = FileSet()
    for number, dataset in enumerate(slices(volume), 1):
        dataset.PatientID = dataset.PatientName = dataset.StudyID = folder.name
        dataset.StudyDate, dataset.StudyTime, dataset.SeriesNumber, dataset.InstanceNumber = (
            "20200101",
            "080000",
            1,
            number,
        )
        disk.add(dataset)
    disk.write(folder)


def write_archive(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for one in sorted(folder.iterdir()):
            file.write(one, f"CT/{one.name}")


def write_localizer(folder: Path) -> None:
    image = np.zeros((40, 30), np.int16)
    how = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}
    localizer = ct_slice(image, (0, 0, 0), (1, 1, 1), generate_uid(), **how)
    localizer.save_as(folder / "topogram.dcm", enforce_file_format=True)


def write_cohort(folder: Path, store: Path, scans: list[Volume]) -> None:
    """Write the cohort in twelve ways, and what does not belong to it beside."""
    write_series(folder / "case-00", scans[0], "CT.1.2.840.113619.2.55.3.604688119.971.{}")
    write_series(folder / "case-01", scans[1], "{}.dicom")
    write_series(folder / "case-02", scans[2], "IM{}", preamble=False)
    (folder / "case-03").symlink_to(write_series(store / "a", scans[3]))
    write_media(folder / "case-04", scans[4])
    write_archive(folder / "case-05.zip", write_series(store / "b", scans[5]))
    enhanced_ct(slices(scans[6])).save_as(make(folder / "case-06") / "enhanced.dcm", enforce_file_format=True)
    write_volume(scans[7], folder / "case-07.nii.gz")
    write_volume(scans[8], folder / "case-08.mha")
    write_volume(scans[9], folder / "case-09.nrrd")
    write_localizer(write_series(folder / "case-10", scans[10]))
    for name, syntax in LOSSLESS.items():
        for file in write_series(folder / "compressed" / name, scans[11 + list(LOSSLESS).index(name)]).iterdir():
            compress(file, syntax)
    write_series(folder / "nested" / "deeply" / "case-16", scans[16])
    (folder / "case-17.nii.gz").symlink_to(store / "c.nii.gz")
    write_volume(scans[17], store / "c.nii.gz")
    write_volume(scans[18], store / "d.nii.gz")
    (folder / "case-18.nii").write_bytes(gzip.decompress((store / "d.nii.gz").read_bytes()))
    write_series(folder / "case-19", scans[19])
    (folder / "case-19" / "report.pdf").write_bytes(b"%PDF-1.4")
    # What is no scan, or none that can be used:
    (folder / "gone").symlink_to(store / "nowhere")
    (folder / "cut.nii.gz").write_bytes((folder / "case-07.nii.gz").read_bytes()[:2000])
    (folder / "empty.nrrd").touch()
    os.mkfifo(folder / "pipe.dcm")
    mixed = write_series(folder / "mixed", scans[0])
    write_series(store / "other", scans[1])
    for file in (store / "other").iterdir():
        file.rename(mixed / f"other-{file.name}")
    (folder / "report.pdf").write_bytes(b"%PDF-1.4")
    (folder / "patients.xlsx").write_bytes(b"PK")


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_every_good_case_is_prepared_and_everything_else_is_listed(tmp_path: Path, scans: list[Volume]) -> None:
    cohort = make(tmp_path / "cohort")
    write_cohort(cohort, make(tmp_path / "store"), scans)
    found = search_scans(cohort).scans
    good = [name for name in found if name not in ("cut", "empty", "mixed")]
    volumes = {name: read_volume(Path(str(found[name]))).array for name in good}
    for scan in scans:
        assert sum(np.array_equal(scan.array, array) for array in volumes.values()) == 1
    printed = raylift_json(
        "data", "prepare", cohort, "-o", tmp_path / "prepared", "--voxels", 32, "--pixels", 32, code=3
    )
    assert printed["prepared"] == GOOD
    assert sorted(name for name, case in printed["cases"].items() if case["status"] == "ok") == good
    reasons = {name: case["reason"] for name, case in printed["cases"].items() if case["status"] != "ok"}
    assert list(reasons) == ["cut", "empty", "mixed"]
    assert "cut short" in reasons["cut"]
    assert "cut short" in reasons["empty"]
    assert "2 series in one folder" in reasons["mixed"]
    assert printed["left_out"] == {
        "case-19/report.pdf": "no scan",
        "gone": "a link that leads nowhere",
        "patients.xlsx": "no scan",
        "pipe.dcm": "neither a file nor a folder",
        "report.pdf": "no scan",
    }
    assert "left out: topogram.dcm (localizer)" in printed["cases"]["case-10"]["warnings"]
    record = json.loads((tmp_path / "prepared" / "dataset.json").read_text())
    assert record["left_out"] == printed["left_out"]
