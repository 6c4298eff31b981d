"""Image files that ITK reads: each by the reader of its ending, and with no file but those in its own folder.

A MetaImage or NRRD header may name any other file as the one that holds its pixels, and ITK opens whatever is named.
So headers are parsed here first, more strictly than ITK does.
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
SAVE_AS_ONE = "save it as one file"
# Of a MetaImage: how many numbers a key has, by the number of axes. ITK reads on in the next line where some are
# missing, so that a key could hide there.
NUMBERS = {
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
# Keys that ITK adds of what it knows besides: DICOM tags and its own.
FURTHER = re.compile(r"[0-9A-Fa-f]{4}\|[0-9A-Fa-f]{4}|ITK_\w+")
KEY = re.compile(r"[\w|. -]+")  # ITK takes a colon for an equals sign


def image_reader(path: Path, *, alone: bool = False) -> sitk.ImageFileReader:
    """Return ITK's reader of an image file, by its ending, once its header has been found harmless.

    Args:
        path: .mha, .mhd, .nrrd, .nii or .nii.gz.
        alone: the file has to hold all of itself, and its header nothing unknown, since a stranger sent it.

    Raises:
        BadInput: it is no regular file; or its header is damaged, or names a file that does not lie in its folder.
    """
    if not path.is_file():  # a pipe or a device would be waited for without end
        raise BadInput(path, "no regular file", "give an image file")
    suffix = suffix_of(path)
    if suffix in (".mha", ".mhd"):
        named = _metaimage_data_file(path, alone)
    elif suffix == ".nrrd":
        named = _nrrd_data_file(path)
    else:
        named = None
        _check_nifti(path)
    if named is not None:
        _check_beside(path, named, alone)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(READERS[suffix])  # ITK chooses by content otherwise: HDF5, which names files too, say
    reader.SetFileName(str(path))
    return reader


def _check_beside(path: Path, named: str, alone: bool) -> None:
    """Raise BadInput unless a data file that a header names is a regular one in the header's folder."""
    if alone or named.upper().startswith("LIST") or "%" in named:
        raise BadInput(path, "its pixels lie in another file" if alone else "its pixels lie in several", SAVE_AS_ONE)
    try:
        file_inside(path.parent, named)
    except ValueError as error:
        raise BadInput(path, f"the file that it names cannot be used ({error})", "put it beside the header") from None


def _metaimage_data_file(path: Path, alone: bool) -> str | None:
    """Return the file that a MetaImage names for its pixels, None where they follow the header. Raises BadInput."""
    axes, seen = 0, set[str]()
    for line in _lines(path):
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not KEY.fullmatch(key) or key in seen:
            raise BadInput(path, f"cannot be read (its header says '{line[:60]}')", "save it again")
        seen.add(key)
        if key == "ElementDataFile":
            return None if value.upper() == "LOCAL" else value
        if alone and (key == "HeaderSize" or not (key in NUMBERS or FURTHER.fullmatch(key))):
            raise BadInput(path, f"its header says '{key[:60]}', which is not known", "save it again without that")
        count = NUMBERS.get(key)
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
    """Return the file that an NRRD names for its pixels, None where they follow the header. Raises BadInput."""
    named: list[str] = []
    for line in _lines(path):
        if not line:
            break
        field, _, value = line.partition(":")
        if field.lower().replace(" ", "") == "datafile":
            named.append(value.strip())
    if len(named) > 1:
        raise BadInput(path, "names more than one file for its pixels", SAVE_AS_ONE)
    return named[0] if named else None


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text header, one after another. Raises BadInput where one is no printable text."""
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
                raise BadInput(path, "cannot be read (its header is no text)", "copy it again")
            yield text


def _check_nifti(path: Path) -> None:
    """Raise BadInput unless it is a binary NIfTI of one file: text headers and those of pairs name others."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if packed else path.open("rb") as file:
            header = file.read(540)
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(path, f"cannot be read ({error})", "the file is damaged or cut short; copy it again") from None
    length = struct.unpack("<i", header[:4].ljust(4, b"\0"))[0]
    magic = header[344:348] if length in (348, 0x5C010000) else header[4:8]
    if magic[:3] not in (b"n+1", b"n+2"):
        raise BadInput(
            path, "cannot be read (no NIfTI that holds its own voxels)", "copy it again, or convert it to .nii.gz"
        )
