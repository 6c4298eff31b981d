"""Loops compiled by Numba, which let go of Python's lock, on as many threads as PyTorch may use."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import njit

# Sums may be reordered, multiplications and additions fused; infinities and NaN keep their meaning.
loop: Any = njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz", "arcp"})

PARTS = 4  # for each thread, since some take longer than others


def in_parts(work: Callable[[int, int], None], count: int) -> None:
    """Call `work(start, stop)` for parts of 0 ... count, on `torch.get_num_threads()` threads at once."""
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        work(0, count)
        return
    parts = min(PARTS * threads, count)
    edges = [count * k // parts for k in range(parts + 1)]
    list(_pool(threads).map(work, edges[:-1], edges[1:]))


def filling(loop: Any, given: tuple[Any, ...], results: tuple[np.ndarray, ...]) -> Callable[[int, int], None]:
    """A loop `loop(*given, start, stop, *results)` as `in_parts` calls it."""
    return lambda start, stop: loop(*given, start, stop, *results)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "raylift")
