"""Images that GDCM has compressed read like the same images as they were."""

from pathlib import Path

import gdcm
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames

from compression import LOSSLESS, compress
from dicom_files import ct_slice
from radiograph_files import grey, write_dicom
from raylift.errors import BadInput
from raylift.io.volumes import read_volume
from raylift.radiographs import read_radiograph


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_compressed_radiograph(tmp_path: Path, name: str) -> None:
    path = write_dicom(tmp_path / "x.dcm", grey(16) // 16)
    plain = read_radiograph(path).image
    compress(path, LOSSLESS[name])
    np.testing.assert_array_equal(read_radiograph(path).image, plain)


def test_a_radiograph_compressed_with_loss(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "x.dcm", grey(8), BitsAllocated=8, BitsStored=8, HighBit=7,
                       PixelData=grey(8).tobytes())  # fmt: skip
    plain = read_radiograph(path).image
    compress(path, gdcm.TransferSyntax.JPEGBaselineProcess1)
    assert np.abs(read_radiograph(path).image - plain).mean() < 0.05


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", LOSSLESS)
def test_a_compressed_series(tmp_path: Path, name: str, signed: bool) -> None:
    hu = np.random.default_rng(0).integers(-1024, 2000, (3, 24, 20))
    for z, plane in enumerate(hu):
        stored = plane.astype(np.int16) if signed else (plane + 1024).astype(np.uint16)
        how = {"RescaleIntercept": 0 if signed else -1024, "PixelRepresentation": int(signed)}
        ct_slice(stored, (0, 0, 5 * z), (1, 1, 5), "1.2.3", **how).save_as(tmp_path / f"{z}.dcm")
        compress(tmp_path / f"{z}.dcm", LOSSLESS[name])
    np.testing.assert_array_equal(read_volume(tmp_path).array, hu)


@pytest.mark.parametrize("name", LOSSLESS)
def test_compressed_data_that_are_cut_short_are_refused(tmp_path: Path, name: str) -> None:
    path = write_dicom(tmp_path / "x.dcm", grey(16) // 16)
    compress(path, LOSSLESS[name])
    dataset = dcmread(path)
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[: len(frame) // 3 * 2]])
    dataset.save_as(path)
    with pytest.raises(BadInput, match=r"x\.dcm: cannot be read"):
        read_radiograph(path)
