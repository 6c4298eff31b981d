"""Recognise DICOM files by their content, and read their headers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

PREAMBLE = 128  # bytes before the mark DICM
# How a file without preamble begins: an element of the group 0002 or 0008, in little or big endian.
STARTS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")


def looks_like_dicom(start: bytes) -> bool:
    """Return whether a file that begins with these bytes, 132 or more, may be DICOM, with or without preamble."""
    return start[PREAMBLE : PREAMBLE + 4] == b"DICM" or start[:2] in STARTS


def read_dicom_file(path: Path, tags: Sequence[str] | None = None) -> Dataset | None:
    """Read a DICOM file, whatever its name is; a file without preamble is read too.

    Args:
        path: the file.
        tags: keywords of the elements to read, without the pixels; all of the file by default.

    Returns:
        The dataset, whose `file_meta` has a transfer syntax; None where the file is no DICOM object.

    Raises:
        OSError: the file cannot be read.
    """
    if not path.is_file():  # reading a pipe or a device might never end
        return None
    with path.open("rb") as file:
        if not looks_like_dicom(file.read(PREAMBLE + 4)):
            return None
    wanted = None if tags is None else [*tags, "SOPClassUID"]
    try:
        dataset = pydicom.dcmread(path, force=True, stop_before_pixels=tags is not None, specific_tags=wanted)
        if not str(dataset.get("SOPClassUID") or ""):
            return None
        _ensure_syntax(dataset)
    except OSError:
        raise
    except Exception:  # parsers fail on what only looks like DICOM in more ways than they document
        return None
    return dataset


def _ensure_syntax(dataset: FileDataset) -> None:
    """Set the transfer syntax of a dataset whose file did not declare one, as the parser found it."""
    dataset.ensure_file_meta()
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        uncompressed = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else uncompressed


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
