"""Image headers open no file but those in their own folder, and stand for the reader of their ending alone."""

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from raylift.errors import BadInput
from raylift.geometry import VolumeGrid
from raylift.images.volume import Volume
from raylift.io.image_headers import image_reader
from raylift.io.volumes import read_volume, write_volume

START = "NDims = 2\nDimSize = 64 64\nElementType = MET_FLOAT\n"
# Each names another patient's pixels. ITK opens those of the kinds marked True.
HOSTILE = {
    "plain": (f"{START}ElementDataFile = SECRET\n", True),
    "after a comment that says the key": (
        f"Comment = ElementDataFile = LOCAL\n{START}ElementDataFile = SECRET\n",
        True,
    ),
    "hidden behind a key of too few numbers": (
        f"{START}Color =\nElementDataFile = LOCAL\nElementDataFile = SECRET\n",
        True,
    ),
    "by a colon": (f"{START}ElementDataFile: SECRET\nElementDataFile = LOCAL\n", True),
    "with blanks": (f"{START}  ElementDataFile  =   SECRET\n", True),
    "past a header": (f"{START}HeaderSize = 4\nElementDataFile = SECRET\n", True),
    "in a list": (f"{START}ElementDataFile = LIST\nSECRET\n", False),
    "twice": (f"{START}ElementDataFile = SECRET\nElementDataFile = LOCAL\n", True),
    "by a carriage return": (f"{START}Comment = x\rElementDataFile = SECRET\nElementDataFile = LOCAL\n", False),
    "an identity without a number": (f"{START}ID =\nElementDataFile = LOCAL\nElementDataFile = SECRET\n", False),
}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Another patient's X-ray, in another folder."""
    folder = tmp_path / "another"
    folder.mkdir()
    np.random.default_rng(0).random((64, 65), np.float32).tofile(folder / "secret.raw")
    return folder / "secret.raw"


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    folder = tmp_path / "upload"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("self_contained", [True, False])
def test_no_header_opens_anothers_file(secret: Path, upload: Path, kind: str, self_contained: bool) -> None:
    text, opened = HOSTILE[kind]
    path = upload / "a.mha"
    path.write_text(text.replace("SECRET", str(secret)), newline="")
    if opened:  # the attack is one: ITK alone falls for it
        assert sitk.GetArrayFromImage(sitk.ReadImage(str(path))).max() > 0.9
    with pytest.raises(BadInput) as raised:
        image_reader(path, self_contained=self_contained)
    assert "0.6369" not in str(raised.value)


@pytest.mark.parametrize("line", ["Secret = 1", "HeaderSize = 0", "NDims = 2", "DimSize = 64", "no equals sign"])
def test_a_strangers_header_says_known_things_once(upload: Path, line: str) -> None:
    path = upload / "a.mha"
    path.write_bytes(f"{START}{line}\nElementDataFile = LOCAL\n".encode() + bytes(4 * 64 * 64))
    with pytest.raises(BadInput, match=r"its header (says|has)"):
        image_reader(path, self_contained=True)


@pytest.mark.parametrize("ending", ["mha", "nii", "nii.gz", "nrrd"])
@pytest.mark.parametrize("compressed", [False, True])
def test_what_itk_writes_is_read(upload: Path, ending: str, compressed: bool) -> None:
    image = sitk.GetImageFromArray(np.random.default_rng(0).random((4, 5, 6)).astype(np.float32))
    image.SetMetaData("0008|0060", "DX")
    image.SetMetaData("ITK_note", "by hand")
    path = upload / f"a.{ending}"
    sitk.WriteImage(image, str(path), useCompression=compressed)
    read = image_reader(path, self_contained=True).Execute()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(image))


def test_pixels_beside_their_header(secret: Path, upload: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((4, 5, 6), np.int16)), str(upload / "a.mhd"))
    assert image_reader(upload / "a.mhd").Execute().GetSize() == (6, 5, 4)
    with pytest.raises(BadInput, match="its pixels are in another file; save it as one file"):
        image_reader(upload / "a.mhd", self_contained=True)
    (upload / "a.raw").unlink()
    with pytest.raises(BadInput, match=r"its data file cannot be used \(a\.raw is missing"):
        image_reader(upload / "a.mhd")
    (upload / "a.raw").symlink_to(secret)
    with pytest.raises(BadInput, match=r"cannot be used \(a\.raw leads out of its folder\)"):
        image_reader(upload / "a.mhd")
    (upload / "a.raw").unlink()
    os.mkfifo(upload / "a.raw")
    with pytest.raises(BadInput, match="is missing"):
        image_reader(upload / "a.mhd")


@pytest.mark.parametrize("field", ["data file", "datafile", "Data File"])
def test_an_nrrd_that_names_another_file(secret: Path, upload: Path, field: str) -> None:
    header = f"NRRD0004\ntype: float\ndimension: 2\nsizes: 64 64\nencoding: raw\nendian: little\n{field}: {secret}\n"
    (upload / "a.nrrd").write_text(header)
    with pytest.raises(BadInput, match="is no plain file name"):
        image_reader(upload / "a.nrrd")


def test_a_text_nifti_names_files_too(secret: Path, upload: Path) -> None:
    (upload / "a.nii").write_text(f"<nifti_image\n nifti_type = 'NIFTI-1A'\n image_filename = '{secret}'\n/>\n")
    with pytest.raises(BadInput, match="not a NIfTI file that holds its own voxels"):
        image_reader(upload / "a.nii")


def test_the_ending_decides_on_the_reader(upload: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((64, 64), np.float32)), str(upload / "a.h5"))
    for ending in ("nii", "mha", "nrrd"):
        path = upload / f"a.{ending}"
        path.write_bytes((upload / "a.h5").read_bytes())
        with pytest.raises((BadInput, RuntimeError)):  # HDF5 knows pixels in other files
            image_reader(path).Execute()


def test_a_pipe_is_not_waited_for(upload: Path) -> None:
    os.mkfifo(upload / "a.nii")
    with pytest.raises(BadInput, match="not a regular file"):
        read_volume(upload / "a.nii")


def test_a_name_that_is_not_utf8_is_refused_where_itk_would_abort(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller.mha"))
    path.write_bytes(b"x")
    with pytest.raises(BadInput, match=r"M.ller\.mha: its name is not text in UTF-8; rename it"):
        read_volume(path)
    with pytest.raises(BadInput, match="not text in UTF-8"):
        write_volume(Volume(np.zeros((2, 2, 2), np.int16), VolumeGrid.cube((0, 0, 0), 2, 2)), path)


# --- Units of length ------------------------------------------------------------------------------------------------


def nrrd(path: Path, unit: str, length: float, *, spacing: bool = True) -> Path:
    """A volume of 2 mm × 3 mm × 4 mm voxels whose header gives lengths in a unit of `length` mm."""
    directions = " ".join(f"({','.join('0' if k != j else f'{s / length:g}' for k in range(3))})"
                          for j, s in enumerate((2, 3, 4)))  # fmt: skip
    lines = ["NRRD0004", "type: short", "dimension: 3", "space: left-posterior-superior", "sizes: 5 6 7"]
    lines += [f"space directions: {directions}", f"space origin: ({10 / length:g},0,0)"] if spacing else []
    lines += [f'space units: "{unit}" "{unit}" "{unit}"'] if unit else []
    lines += ["kinds: domain domain domain", "endian: little", "encoding: raw", "", ""]
    path.write_bytes("\n".join(lines).encode() + np.arange(210, dtype="<i2").tobytes())
    return path


@pytest.mark.parametrize(
    ("unit", "length"), [("", 1), ("mm", 1), ("cm", 10), ("m", 1000), ("um", 0.001), ("µm", 0.001)]
)
def test_lengths_of_an_nrrd_are_scaled(tmp_path: Path, unit: str, length: float) -> None:
    volume = read_volume(nrrd(tmp_path / "ct.nrrd", unit, length))
    assert volume.grid.spacing == pytest.approx((2, 3, 4))
    assert volume.grid.origin[0] == pytest.approx(10)
    assert bool(volume.notes) == (length != 1)


def test_units_and_spacings_that_are_unknown_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"ct\.nrrd: lengths in furlong"):
        read_volume(nrrd(tmp_path / "ct.nrrd", "furlong", 1))
    with pytest.raises(BadInput, match=r"ct\.nrrd: its header gives no distance of voxels"):
        read_volume(nrrd(tmp_path / "ct.nrrd", "", 1, spacing=False))


@pytest.mark.parametrize(("lines", "problem"), [
    ("DistanceUnits = cm\nElementSpacing = .2 .3 .4\n", None),
    ("ElementSize = 2 3 4\n", None),
    ("DistanceUnits = inch\nElementSpacing = .2 .3 .4\n", "lengths in inch"),
    ("", "its header gives no distance of voxels"),
])  # fmt: skip
def test_lengths_of_a_metaimage(tmp_path: Path, lines: str, problem: str | None) -> None:
    (tmp_path / "ct.raw").write_bytes(np.arange(210, dtype="<i2").tobytes())
    (tmp_path / "ct.mhd").write_text(
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        f"{lines}DimSize = 5 6 7\nElementType = MET_SHORT\nElementDataFile = ct.raw\n"
    )
    if problem:
        with pytest.raises(BadInput, match=problem):
            read_volume(tmp_path / "ct.mhd")
    else:
        assert read_volume(tmp_path / "ct.mhd").grid.spacing == pytest.approx((2, 3, 4))
