"""Access to float32 and bfloat16 maps in compiled loops, which compute in float32, and a vectorising exponential.

NumPy and Numba know no bfloat16, so such maps are passed as uint16 with the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload
from torch import Tensor

from raylift.numerics.compiled import part


def rows_of(maps: Tensor) -> list[np.ndarray]:
    """Return each item of a contiguous batch (B, R, C) as an array (R, C) for compiled loops, bfloat16 as uint16."""
    maps = maps.detach()
    return list((maps.view(torch.uint16) if maps.dtype == torch.bfloat16 else maps).numpy())


@intrinsic
def _float_of(typing: Any, bits: Any) -> Any:
    """Return the float32 with these 32 bits."""
    return types.float32(types.uint32), lambda context, build, signature, args: build.bitcast(args[0], ir.FloatType())


@intrinsic
def _bits_of(typing: Any, value: Any) -> Any:
    """Return the 32 bits of a float32."""
    return types.uint32(types.float32), lambda context, build, signature, args: build.bitcast(args[0], ir.IntType(32))


def get(array: np.ndarray, row: int, column: int) -> float:
    """Return a value of a two-dimensional map as float32, in compiled loops.

    Raises:
        NotImplementedError: it is called from Python; only compiled loops have an implementation.
    """
    raise NotImplementedError


def put(array: np.ndarray, row: int, column: int, value: float) -> None:
    """Set a value of a two-dimensional map, in compiled loops.

    Raises:
        NotImplementedError: it is called from Python; only compiled loops have an implementation.
    """
    raise NotImplementedError


@overload(get)
def _get(array: Any, row: Any, column: Any) -> Any:
    if array.dtype == types.uint16:

        def from_bfloat16(array: Any, row: Any, column: Any) -> Any:
            return _float_of(np.uint32(array[row, column]) << np.uint32(16))

        return from_bfloat16

    def from_float32(array: Any, row: Any, column: Any) -> Any:
        return array[row, column]

    return from_float32


@overload(put)
def _put(array: Any, row: Any, column: Any, value: Any) -> Any:
    if array.dtype == types.uint16:

        def to_bfloat16(array: Any, row: Any, column: Any, value: Any) -> Any:
            bits = _bits_of(np.float32(value))
            odd = (bits >> np.uint32(16)) & np.uint32(1)  # halves are rounded to even
            array[row, column] = np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))

        return to_bfloat16

    def to_float32(array: Any, row: Any, column: Any, value: Any) -> Any:
        array[row, column] = value

    return to_float32


@part
def exponential(x: float) -> float:
    """Return eˣ for x ≤ 0 in single precision, with a relative error of at most 2e-7; e⁻⁸⁷ for x below −87.

    eˣ = 2ᵏ eʳ with k the integer nearest to x / ln 2, so |r| ≤ ln 2 / 2 and a Taylor series of degree 6 suffices.
    """
    x = max(np.float32(x), np.float32(-87.0))
    k = np.floor(x * np.float32(1.4426950408889634) + np.float32(0.5))
    r = x - k * np.float32(0.693359375)
    r = r - k * np.float32(-2.12194440e-4)  # ln 2 in two parts
    series = np.float32(1 / 720)
    series = series * r + np.float32(1 / 120)
    series = series * r + np.float32(1 / 24)
    series = series * r + np.float32(1 / 6)
    series = series * r + np.float32(0.5)
    series = series * r + np.float32(1)
    series = series * r + np.float32(1)
    return series * _float_of(np.uint32((np.int32(k) + np.int32(127)) << np.int32(23)))
