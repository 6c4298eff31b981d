"""Trilinear interpolation in a volume at many positions, compiled by Numba, for projection and augmentation."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from raylift.numerics.compiled import part


@part
def interpolate(
    volume: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray, count: int, index: np.ndarray, pairs: np.ndarray,
    out: np.ndarray,
) -> None:  # fmt: skip
    """Fill out[:count] with a volume's values at index coordinates between its outermost voxels' centres.

    There are three loops so that the first and the last can use vector instructions; only the second accesses memory
    at random, four times per position.

    Args:
        volume: (D, H, W), contiguous.
        x: index coordinates, float32, at least `count` of them; overwritten with their fractional parts.
        y: likewise.
        z: likewise.
        count: number of positions.
        index: int64, as long as x; scratch memory.
        pairs: (4, twice the length of x), of the volume's type; scratch memory.
        out: float32, filled with the values.
    """
    _, height, width = volume.shape
    flat = volume.reshape(-1)
    across, up = np.int64(width), np.int64(height * width)
    near, right, above, far = pairs[0], pairs[1], pairs[2], pairs[3]
    for k in range(count):
        i, j, m = np.int64(x[k]), np.int64(y[k]), np.int64(z[k])
        x[k] -= np.float32(i)
        y[k] -= np.float32(j)
        z[k] -= np.float32(m)
        index[k] = (m * height + j) * width + i
    for k in range(count):
        p = index[k]
        _copy_pair(flat, p, near, 2 * k)
        _copy_pair(flat, p + across, right, 2 * k)
        _copy_pair(flat, p + up, above, 2 * k)
        _copy_pair(flat, p + up + across, far, 2 * k)
    for k in range(count):
        a, b = np.float32(near[2 * k]), np.float32(right[2 * k])
        c, d = np.float32(above[2 * k]), np.float32(far[2 * k])
        a += (np.float32(near[2 * k + 1]) - a) * x[k]
        b += (np.float32(right[2 * k + 1]) - b) * x[k]
        c += (np.float32(above[2 * k + 1]) - c) * x[k]
        d += (np.float32(far[2 * k + 1]) - d) * x[k]
        a += (b - a) * y[k]
        c += (d - c) * y[k]
        out[k] = a + (c - a) * z[k]


def _pair_copied(typing: Any, source: Any, index: Any, target: Any, offset: Any) -> Any:
    """Return Numba's signature and code generator for `_copy_pair(source, index, target, offset)`.

    It copies source[index : index + 2] to target[offset : offset + 2] by one load and one store; both arrays are
    contiguous.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        width = signature.args[0].dtype.bitwidth
        both = ir.IntType(2 * width).as_pointer()

        def pointer(k: int) -> Any:
            array = context.make_array(signature.args[k])(context, builder, args[k])
            return builder.bitcast(builder.gep(array.data, [args[k + 1]]), both)

        builder.store(builder.load(pointer(0), align=width // 8), pointer(2), align=width // 8)
        return context.get_dummy_value()

    return types.void(source, types.int64, target, types.int64), generate


_copy_pair: Any = intrinsic(_pair_copied)
