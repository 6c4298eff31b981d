"""Maps in compiled loops: float32, or bfloat16 as uint16, computed in float32; and an exponential that vectorises."""

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
    """Each of a batch (B, R, C), in one piece, as an array (R, C) for compiled loops; bfloat16 as uint16."""
    maps = maps.detach()
    return list((maps.view(torch.uint16) if maps.dtype == torch.bfloat16 else maps).numpy())


@intrinsic
def _float_of(typing: Any, bits: Any) -> Any:
    """The float32 with these 32 bits."""
    return types.float32(types.uint32), lambda context, build, signature, args: build.bitcast(args[0], ir.FloatType())


@intrinsic
def _bits_of(typing: Any, value: Any) -> Any:
    """The 32 bits of a float32."""
    return types.uint32(types.float32), lambda context, build, signature, args: build.bitcast(args[0], ir.IntType(32))


def get(array: np.ndarray, row: int, column: int) -> float:
    """A value of a two-dimensional map as float32, in compiled loops."""
    raise NotImplementedError


def put(array: np.ndarray, row: int, column: int, value: float) -> None:
    """Set a value of a two-dimensional map, in compiled loops."""
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
    """eˣ for x ≤ 0 in single precision, to 2e-7 of its value; that of −87 below −87.

    eˣ = 2ᵏ eʳ with k the nearest integer to x / ln 2, so that |r| ≤ ln 2 / 2 and Taylor's series of degree 6 does.
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
