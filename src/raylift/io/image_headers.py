"""Check the headers of image files before ITK reads them.

A MetaImage or NRRD header may name any file as the one that holds its pixels, and ITK opens it. So headers are parsed
here first, more strictly than ITK does: a header may only name a file in its own folder, and the ending of the file's
name decides which of ITK's readers reads it.
"""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import SimpleITK as sitk

from raylift.errors import BadInput
from raylift.storage.paths import suffix_of
from raylift.storage.records import file_inside

READERS = {
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
    ".nrrd": "NrrdImageIO",
    ".nii": "NiftiImageIO",
    ".nii.gz": "NiftiImageIO",
}
LONGEST_HEADER = 2**16  # bytes
UNITS_MM = {
    "mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "cm": 10.0, "m": 1000.0,
    "um": 0.001, "µm": 0.001, "micron": 0.001, "?": 1.0,
}  # fmt: skip
SAVE_AS_ONE = "save it as one file"
# The keys of a MetaImage, each with the number of its numbers by the number of axes; None for a text. ITK continues in
# the next line where numbers are missing, so that a key could hide there.
VALUE_COUNTS = {
    "NDims": lambda axes: 1,
    "DimSize": lambda axes: axes,
    "ElementSpacing": lambda axes: axes,
    "ElementSize": lambda axes: axes,
    "Offset": lambda axes: axes,
    "Position": lambda axes: axes,
    "Origin": lambda axes: axes,
    "CenterOfRotation": lambda axes: axes,
    "TransformMatrix": lambda axes: axes**2,
    "Rotation": lambda axes: axes**2,
    "Orientation": lambda axes: axes**2,
    "ElementNumberOfChannels": lambda axes: 1,
    "ElementMin": lambda axes: 1,
    "ElementMax": lambda axes: 1,
    "CompressedDataSize": lambda axes: 1,
    "CompressionLevel": lambda axes: 1,
    "HeaderSize": lambda axes: 1,
    "ID": lambda axes: 1,
    "ParentID": lambda axes: 1,
    "Color": lambda axes: 4,
    "Modality": None,
    "ElementType": None,
    "ObjectType": None,
    "ObjectSubType": None,
    "TransformType": None,
    "AnatomicalOrientation": None,
    "BinaryData": None,
    "BinaryDataByteOrderMSB": None,
    "ElementByteOrderMSB": None,
    "CompressedData": None,
    "DistanceUnits": None,
    "Name": None,
    "Comment": None,
    "AcquisitionDate": None,
}
# Further keys that ITK writes: DICOM tags and its own.
ITK_KEY = re.compile(r"[0-9A-Fa-f]{4}\|[0-9A-Fa-f]{4}|ITK_\w+")
KEY = re.compile(r"[\w|. -]+")  # without a colon, which ITK reads as an equals sign


def image_reader(path: Path, *, self_contained: bool = False) -> sitk.ImageFileReader:
    """Return ITK's reader of an image file, by the file's ending, after checking its header.

    Args:
        path: a .mha, .mhd, .nrrd, .nii or .nii.gz file.
        self_contained: the file must hold its own pixels, and its header only known keys; for files from strangers.

    Raises:
        BadInput: it is not a regular file, or its header is damaged or names a file outside its folder.
    """
    check_regular(path)
    check_name(path)
    suffix = suffix_of(path)
    if suffix in (".mha", ".mhd"):
        data_file = _metaimage_data_file(path, self_contained)
    elif suffix == ".nrrd":
        data_file = _nrrd_data_file(path)
    else:
        data_file = None
        check_nifti(path)
    if data_file is not None:
        _check_data_file(path, data_file, self_contained)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(READERS[suffix])  # else ITK chooses by content, and HDF5, for one, may name files too
    reader.SetFileName(str(path))
    return reader


def check_regular(path: Path) -> None:
    """Check that a path names a regular file: reading a pipe or a device might never end.

    Raises:
        BadInput: it does not.
    """
    if not path.is_file():
        raise BadInput(path, "not a regular file", "give an image file")


def check_name(path: Path) -> None:
    """Check that a path is text in UTF-8: ITK ends the process at any other.

    Raises:
        BadInput: it is not.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = str(path).encode(errors="surrogateescape").decode(errors="replace")
        raise BadInput(shown, "its name is not text in UTF-8", "rename it") from None


def _check_data_file(path: Path, data_file: str, self_contained: bool) -> None:
    """Check that the data file that a header names is a regular file in the header's folder.

    Raises:
        BadInput: it is not, or there are several, or the header should not name any.
    """
    if self_contained or data_file.upper().startswith("LIST") or "%" in data_file:
        problem = "its pixels are in another file" if self_contained else "its pixels are in several files"
        raise BadInput(path, problem, SAVE_AS_ONE)
    try:
        file_inside(path.parent, data_file)
    except ValueError as error:
        raise BadInput(path, f"its data file cannot be used ({error})", "put the data file beside the header") from None


def _metaimage_data_file(path: Path, self_contained: bool) -> str | None:
    """Return the name of the data file in a MetaImage's header, None where the pixels follow the header.

    Raises:
        BadInput: the header is damaged or, of a `self_contained` file, has an unknown key.
    """
    axes, keys = 0, set[str]()
    for line in _header_lines(path):
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not KEY.fullmatch(key) or key in keys:
            raise BadInput(path, f"cannot be read (its header says '{line[:60]}')", "save it again")
        keys.add(key)
        if key == "ElementDataFile":
            return None if value.upper() == "LOCAL" else value
        if self_contained and (key == "HeaderSize" or not (key in VALUE_COUNTS or ITK_KEY.fullmatch(key))):
            raise BadInput(path, f"its header has the unknown key '{key[:60]}'", "save it again without the key")
        count = VALUE_COUNTS.get(key)
        if count is None:
            continue
        try:
            numbers = [float(part) for part in value.split()]
        except ValueError:
            numbers = []
        if key == "NDims":
            axes = int(numbers[0]) if len(numbers) == 1 and numbers[0] in (2, 3, 4) else 0
        if not axes or len(numbers) != count(axes):
            raise BadInput(path, f"cannot be read (its header says '{line[:60]}')", "save it again")
    raise BadInput(path, "cannot be read (its header does not say where its pixels are)", "copy it again")


def _nrrd_data_file(path: Path) -> str | None:
    """Return the name of the data file in an NRRD's header, None where the pixels follow the header.

    Raises:
        BadInput: the header is damaged or names several files.
    """
    data_files: list[str] = []
    for line in _header_lines(path):
        if not line:
            break
        field, _, value = line.partition(":")
        if field.lower().replace(" ", "") == "datafile":
            data_files.append(value.strip())
    if len(data_files) > 1:
        raise BadInput(path, "its pixels are in several files", SAVE_AS_ONE)
    return data_files[0] if data_files else None


def length_in_mm(path: Path) -> float:
    """Return the length in mm of the unit in which a MetaImage or NRRD header gives lengths.

    Raises:
        BadInput: the header names another unit, several, or no distance of voxels.
    """
    suffix, units, keys = suffix_of(path), set[str](), set[str]()
    for line in _header_lines(path):
        if not line:  # the end of an NRRD's header
            break
        key, _, value = (part.strip() for part in line.partition(":" if suffix == ".nrrd" else "="))
        key = key.lower().replace(" ", "")
        keys.add(key)
        if key in ("spaceunits", "units"):
            units |= {unit for unit in re.findall(r'"([^"]*)"', value) if unit}
        elif key == "distanceunits":
            units.add(value)
        elif key == "elementdatafile":
            break
    if keys & {"sizes", "dimsize"} and not keys & {"spacings", "spacedirections", "elementspacing", "elementsize"}:
        raise BadInput(path, "its header gives no distance of voxels", "save it again with its spacing")
    if unknown := [unit for unit in units if unit.lower() not in UNITS_MM] or (sorted(units) if len(units) > 1 else []):
        raise BadInput(path, f"lengths in {', '.join(unknown)[:40]}", "save it again, with lengths in mm")
    return UNITS_MM[units.pop().lower()] if units else 1.0


def _header_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text header.

    Raises:
        BadInput: a line is not printable text.
    """
    with path.open("rb") as file:
        left = LONGEST_HEADER
        while left > 0 and (line := file.readline(left)):
            left -= len(line)
            if not line.endswith(b"\n"):
                break
            try:
                text = line.decode().rstrip("\r\n")
            except UnicodeDecodeError:
                text = "\0"
            if not text.replace("\t", "").isprintable():
                raise BadInput(path, "cannot be read (its header is not text)", "copy it again")
            yield text


def check_nifti(path: Path) -> None:
    """Check that a file is a binary NIfTI that holds its own voxels: other kinds of header name other files.

    Raises:
        BadInput: it is not, or it is damaged.
    """
    check_regular(path)
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if compressed else path.open("rb") as file:
            header = file.read(540)
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(path, f"cannot be read ({error})", "the file is damaged or cut short; copy it again") from None
    length = struct.unpack("<i", header[:4].ljust(4, b"\0"))[0]
    magic = header[344:348] if length in (348, 0x5C010000) else header[4:8]
    if magic[:3] not in (b"n+1", b"n+2"):
        raise BadInput(
            path,
            "cannot be read (not a NIfTI file that holds its own voxels)",
            "copy it again, or convert it to .nii.gz",
        )
