"""Decode the stored values of DICOM images, with what their attributes say of bits, sign and padding."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array


def check_decodable(dataset: Dataset) -> None:
    """Check that the pixels of a dataset are compressed in a way that an installed decoder reads.

    Raises:
        ValueError: they are not; the message names the compression.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
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
    """
    words = pixel_array(dataset, index=frame, raw=True, correct_unused_bits=False)
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    high, signed = int(dataset.get("HighBit", stored - 1)), bool(dataset.PixelRepresentation)
    compressed = dataset.file_meta.TransferSyntaxUID.is_compressed
    if compressed or stored == allocated == 8 * words.dtype.itemsize:
        values = words.astype(np.int32)
    else:
        unsigned = words.astype(f"u{words.dtype.itemsize}", copy=False)
        values = (unsigned >> max(high + 1 - stored, 0)).astype(np.int32) & (2**stored - 1)
        if signed:
            values -= (values >> (stored - 1)) << stored
    return values, _padding(dataset, words, values, allocated)


def _padding(dataset: Dataset, words: np.ndarray, values: np.ndarray, allocated: int) -> np.ndarray | None:
    """Return the mask of the padding of an image, None where there is none."""
    first = dataset.get("PixelPaddingValue")
    if first is None or isinstance(first, bytes):
        return None
    last = dataset.get("PixelPaddingRangeLimit")
    last = first if last is None or isinstance(last, bytes) else last
    size = 2**allocated
    padded = np.zeros(words.shape, bool)
    for array in (words.astype(np.int64), values):
        # Both ends in the range of values that this array can have.
        ends = [
            (int(end) + size // 2) % size - size // 2 if array.min() < 0 else int(end) % size for end in (first, last)
        ]
        padded |= (array >= min(ends)) & (array <= max(ends))
    return padded if padded.any() else None
