"""Loops compiled by Numba, which let go of Python's lock, on as many threads as PyTorch may use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import njit

# Sums may be reordered, multiplications and additions fused; infinities and NaN keep their meaning.
OPTIONS: dict[str, Any] = {
    "nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz", "arcp"},
}  # fmt: skip

PARTS = 4  # for each thread, since some take longer than others


def loop(function: Callable[..., Any]) -> Any:
    """Compile a loop; kept on disk for later runs where there is a folder to write to (`NUMBA_CACHE_DIR` names one).

    Numba looks at a loop's own file to tell whether it is to be compiled anew: delete the caches beside the sources
    after a change to this file, `interpolation.py` or `bfloat16.py`.
    """
    try:
        return njit(cache=True, **OPTIONS)(function)
    except RuntimeError:  # nowhere to write
        return njit(**OPTIONS)(function)


def part(function: Callable[..., Any]) -> Any:
    """Compile a function that only compiled loops call, as a part of each of them.

    Left to itself the compiler keeps some such functions apart, and which copy a loop then calls depends on whether it
    was compiled now or read from the disk: its last bits would be others in a first run than in later ones.
    """
    return njit(forceinline=True, **OPTIONS)(function)


def applies(tensor: torch.Tensor) -> bool:
    """Whether compiled loops compute with a tensor; else PyTorch does: elsewhere, in other precisions, in exports."""
    ours = tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.bfloat16)
    return ours and not torch.compiler.is_exporting()


def in_parts(work: Callable[[int, int], None], count: int, least: int = 1) -> None:
    """Call `work(start, stop)` for parts of 0 ... count, on `torch.get_num_threads()` threads at once, this among them.

    Parts have `least` members or more: what takes less than another thread needs to begin stays on this one.
    """
    threads = min(torch.get_num_threads(), count // least)
    if threads <= 1:
        work(0, count)
        return
    parts = min(PARTS * threads, count // least)
    edges = [count * k // parts for k in range(parts + 1)]
    left = iter(range(parts))

    def take() -> None:
        for k in left:
            work(edges[k], edges[k + 1])

    others = [_pool(threads, threading.get_ident()).submit(take) for _ in range(threads - 1)]
    take()
    for other in others:
        other.result()


def filling(compiled: Any, given: tuple[Any, ...], results: tuple[np.ndarray, ...]) -> Callable[[int, int], None]:
    """A loop `compiled(*given, start, stop, *results)` as `in_parts` calls it."""
    return lambda start, stop: compiled(*given, start, stop, *results)


@cache
def _pool(threads: int, caller: int) -> ThreadPoolExecutor:
    """The threads beside a caller, which waits for them alone."""
    return ThreadPoolExecutor(threads - 1, "raylift")
