"""Decode the stored values of DICOM images, with what their attributes say of bits, sign and padding."""

from __future__ import annotations

import os
import re
import struct
import sys
import tempfile
import threading
from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.filewriter import dcmwrite
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

# The decoder of each compression: one of pydicom's, or ITK.
DECODERS = {
    RLELossless: "pydicom",
    JPEGBaseline8Bit: "pillow",
    **dict.fromkeys([JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1], "itk"),
    **dict.fromkeys([JPEGLSLossless, JPEGLSNearLossless], "pyjpegls"),
    **dict.fromkeys([JPEG2000, JPEG2000Lossless, HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL], "pylibjpeg"),
}
# Decoders written in C print to standard error that data are damaged, and decode them nevertheless.
DAMAGE = re.compile(r"corrupt|invalid|bogus|premature|inconsistent|unsupported|marker|fail|too short|error", re.I)
START_OF_FRAME = (0xC1, 0xC3)  # of JPEG Extended, and of JPEG Lossless
END_OF_IMAGE = b"\xff\xd9"  # of JPEG, JPEG-LS and JPEG 2000
_standard_error = threading.Lock()


def check_decodable(dataset: Dataset) -> None:
    """Check that the pixels of a dataset are compressed in a way that a decoder reads.

    Raises:
        ValueError: they are not; the message names the compression.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated and syntax not in DECODERS:
        raise ValueError(f"compressed as {syntax.name}")


def stored_values(dataset: Dataset, frame: int = 0) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the stored values of an image, and where they are padding.

    Bits beside the stored ones, which may hold overlays, are removed; values are signed as PixelRepresentation says.
    Padding is what PixelPaddingValue and PixelPaddingRangeLimit name (PS3.3 C.7.5.1.1.2), with whichever sign the file
    writes them.

    Args:
        dataset: the whole dataset.
        frame: number of the frame, from 0.

    Returns:
        The values (rows, columns), int32; and the mask of the padding, None where there is none.

    Raises:
        ValueError: the compressed data are damaged.
    """
    words = _decode(dataset, frame)
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    high, signed = int(dataset.get("HighBit", stored - 1)), bool(dataset.PixelRepresentation)
    compressed = dataset.file_meta.TransferSyntaxUID.is_compressed
    if compressed or stored == allocated == 8 * words.dtype.itemsize:
        values = words.astype(np.int32)
        return values, _padding(dataset, [values], allocated)
    below = max(high + 1 - stored, 0)  # bits below the stored ones
    unsigned = words.astype(f"u{words.dtype.itemsize}", copy=False)
    values = (unsigned >> below).astype(np.int32) & (2**stored - 1)
    if signed:
        values -= (values >> (stored - 1)) << stored
    # Padding may have bits above the stored ones.
    return values, _padding(dataset, [values] if below else [words.astype(np.int32), values], allocated)


def _decode(dataset: Dataset, frame: int) -> np.ndarray:
    """Return the words of a frame's pixels (rows, columns), decompressed.

    What decoders print of damage is caught; what else is printed to standard error meanwhile appears afterwards.

    Raises:
        ValueError: the compressed data are damaged.
    """
    decoder = DECODERS.get(dataset.file_meta.TransferSyntaxUID)
    if decoder is None:
        return pixel_array(dataset, index=frame, raw=True, correct_unused_bits=False)
    stream = get_frame(dataset.PixelData, frame, number_of_frames=int(dataset.get("NumberOfFrames") or 1))
    if decoder != "pydicom" and not stream.rstrip(b"\0").endswith(END_OF_IMAGE):
        raise ValueError("the compressed image is cut short")
    with _standard_error, tempfile.TemporaryFile() as caught:
        sys.stderr.flush()
        usual = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            if decoder == "itk":
                words = _decode_by_itk(dataset, stream)
            else:
                words = pixel_array(dataset, index=frame, raw=True, decoding_plugin=decoder, correct_unused_bits=False)
        finally:
            os.dup2(usual, 2)
            os.close(usual)
        caught.seek(0)
        printed = caught.read().decode(errors="replace").splitlines()
    for line in printed:
        if DAMAGE.search(line):
            raise ValueError(line.strip())
        print(line, file=sys.stderr)
    return words


def _decode_by_itk(dataset: Dataset, stream: bytes) -> np.ndarray:
    """Return the words of a JPEG stream (rows, columns), decompressed by the GDCM in ITK.

    GDCM's own Python package aborts the process at some damage that ITK reports.

    Raises:
        ValueError: the stream is not of the size or the bits that the dataset states.
        RuntimeError: the stream is damaged.
    """
    image = Dataset()
    for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        setattr(image, keyword, int(dataset[keyword].value))
    words_bits = 8 if _jpeg_precision(stream, (image.Rows, image.Columns)) <= 8 else 16
    if words_bits != image.BitsAllocated:
        raise ValueError(f"the compressed image has words of {words_bits} bits")
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.SOPClassUID, image.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    image.PixelData = encapsulate([stream])
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    with tempfile.TemporaryDirectory() as folder:
        dcmwrite(f"{folder}/image.dcm", image, enforce_file_format=True)
        words: np.ndarray = sitk.GetArrayFromImage(sitk.ReadImage(f"{folder}/image.dcm", imageIO="GDCMImageIO"))[0]
    return words


def _jpeg_precision(stream: bytes, shape: tuple[int, int]) -> int:
    """Return the bits of the pixels in a JPEG stream, whose image GDCM takes for one of the dataset's size.

    Raises:
        ValueError: the stream does not begin with the header of a grey image (rows, columns) of at most 16 bits.
    """
    at = 2
    while at < len(stream) - 10 and stream[at] == 0xFF:  # a marker, then the length of its segment
        if stream[at + 1] in START_OF_FRAME:
            precision, *size, components = struct.unpack_from(">BHHB", stream, at + 4)
            if (*size, components) != (*shape, 1) or precision > 16:
                raise ValueError("the compressed image has another size than its attributes say")
            return int(precision)
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    raise ValueError("the compressed image has no header")


def _padding(dataset: Dataset, readings: Sequence[np.ndarray], allocated: int) -> np.ndarray | None:
    """Return the mask of the padding of an image, None where there is none.

    Args:
        dataset: the whole dataset.
        readings: values (rows, columns), int32, in which the padding's value may be meant.
        allocated: bits of a value.
    """
    first = dataset.get("PixelPaddingValue")
    if first is None or isinstance(first, bytes):
        return None
    last = dataset.get("PixelPaddingRangeLimit")
    last = first if last is None or isinstance(last, bytes) else last
    size = 2**allocated
    padded = np.zeros(readings[0].shape, bool)
    for array in readings:
        # Both ends in the range of values that this array can have.
        ends = [
            (int(end) + size // 2) % size - size // 2 if array.min() < 0 else int(end) % size for end in (first, last)
        ]
        padded |= (array >= min(ends)) & (array <= max(ends))
    return padded if padded.any() else None
