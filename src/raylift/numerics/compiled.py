"""Loops compiled by Numba that release Python's global lock and run on as many threads as PyTorch may use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import njit
from numba.core.caching import FunctionCache

# Sums may be reordered, and multiplications and additions fused; infinities and NaN keep their meaning.
OPTIONS: dict[str, Any] = {
    "nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz", "arcp"},
}  # fmt: skip

PARTS = 4  # per thread, to balance the load, since some parts take longer than others


class _Cache(FunctionCache):
    """The cache of a loop, to which a full disk adds nothing; the work continues."""

    def save_overload(self, sig: Any, data: Any) -> None:
        """Store a compiled loop if there is room."""
        with suppress(OSError):
            super().save_overload(sig, data)


def loop(function: Callable[..., Any]) -> Any:
    """Compile a loop, and cache it on disk for later runs if there is a writable folder (see `NUMBA_CACHE_DIR`).

    Numba recompiles a loop only after a change to the loop's own file. After a change to this file,
    `interpolation.py` or `bfloat16.py`, delete the caches beside the sources.

    Returns:
        The compiled function.
    """
    compiled = njit(**OPTIONS)(function)
    with suppress(RuntimeError):  # no writable folder for the cache
        compiled._cache = _Cache(function)  # as Numba's own option cache=True does
    return compiled


def part(function: Callable[..., Any]) -> Any:
    """Compile a function that only compiled loops call, inlined into each of them.

    Without forced inlining, the compiler keeps some of these functions separate, and a loop may call one copy when it
    has just been compiled and another when it was read from the cache. The last bits of the results would then differ
    between the first run and later ones.

    Returns:
        The compiled function.
    """
    return njit(forceinline=True, **OPTIONS)(function)


def applies(tensor: torch.Tensor) -> bool:
    """Return whether compiled loops support a tensor: float32 or bfloat16 on the CPU, and no export under way."""
    supported = tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.bfloat16)
    return supported and not torch.compiler.is_exporting()


def in_parts(work: Callable[[int, int], None], count: int, least: int = 1) -> None:
    """Call `work(start, stop)` for consecutive parts of the range 0 ... count on several threads.

    There are at most `torch.get_num_threads()` threads, the calling one included.

    Args:
        work: computes the items `start` ... `stop` − 1.
        count: number of items.
        least: fewest items that are worth starting another thread for.
    """
    threads = min(torch.get_num_threads(), count // least)
    if threads <= 1:
        work(0, count)
        return
    parts = min(PARTS * threads, count // least)
    edges = [count * k // parts for k in range(parts + 1)]
    remaining = iter(range(parts))

    def work_off() -> None:
        for k in remaining:
            work(edges[k], edges[k + 1])

    others = [_pool(threads, threading.get_ident()).submit(work_off) for _ in range(threads - 1)]
    work_off()
    for other in others:
        other.result()


def filling(compiled: Any, inputs: tuple[Any, ...], results: tuple[np.ndarray, ...]) -> Callable[[int, int], None]:
    """Return the function `work(start, stop)` for `in_parts` that calls `compiled(*inputs, start, stop, *results)`."""
    return lambda start, stop: compiled(*inputs, start, stop, *results)


@cache
def _pool(threads: int, caller: int) -> ThreadPoolExecutor:
    """Return the pool of the other threads, one pool per calling thread, which is the only one to wait for them."""
    return ThreadPoolExecutor(threads - 1, "raylift")
