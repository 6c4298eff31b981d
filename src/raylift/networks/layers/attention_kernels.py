"""Attention in windows, compiled by Numba: one head of one window at a time, whose scores stay in a core's cache.

Tokens are (T, 3 C): queries, keys and values of all heads, as the linear layer gives them. A window is a row of
`places`, the numbers of its n tokens, −1 where the grid ends before the window does; such a place has the query, key
and value `padding`. Scores stand as (key, query), so that loops over queries run along memory and nothing is summed
across a vector; the queries of a window are taken `QUERIES` at a time.
"""

from __future__ import annotations

import numpy as np

from raylift.numerics.bfloat16 import exponential, get, put
from raylift.numerics.compiled import loop, part

QUERIES = 64
MASKED = np.float32(-100)  # as Swin Transformer's, added to the score of tokens that do not see each other


@part
def _load(tokens: np.ndarray, padding: np.ndarray, places: np.ndarray, column: int, columns: np.ndarray) -> None:
    """Copy a head's queries, keys or values into (d, n)."""
    d = len(columns)
    for i in range(len(places)):
        token = places[i]
        if token < 0:
            for c in range(d):
                columns[c, i] = padding[column + c]
        else:
            for c in range(d):
                columns[c, i] = get(tokens, token, column + c)


@part
def _multiply(a: np.ndarray, b: np.ndarray, width: int, out: np.ndarray) -> None:
    """out[j, i] = Σ_c b[c, j] a[c, i]; the number of channels is a multiple of 4."""
    d, n = b.shape
    for c in range(0, d, 4):
        a0, a1, a2, a3 = a[c], a[c + 1], a[c + 2], a[c + 3]
        for j in range(n):
            row = out[j]
            b0, b1, b2, b3 = b[c, j], b[c + 1, j], b[c + 2, j], b[c + 3, j]
            if c == 0:
                for i in range(width):
                    row[i] = a0[i] * b0 + a1[i] * b1 + a2[i] * b2 + a3[i] * b3
            else:
                for i in range(width):
                    row[i] += a0[i] * b0 + a1[i] * b1 + a2[i] * b2 + a3[i] * b3


@part
def _combine(scores: np.ndarray, b: np.ndarray, width: int, out: np.ndarray) -> None:
    """out[c, i] = Σ_j scores[j, i] b[c, j]."""
    d, n = b.shape
    for c in range(d):
        made, some = out[c], b[c]
        for i in range(width):
            made[i] = 0
        whole = n - n % 4
        for j in range(0, whole, 4):
            s0, s1, s2, s3 = scores[j], scores[j + 1], scores[j + 2], scores[j + 3]
            b0, b1, b2, b3 = some[j], some[j + 1], some[j + 2], some[j + 3]
            for i in range(width):
                made[i] += s0[i] * b0 + s1[i] * b1 + s2[i] * b2 + s3[i] * b3
        for j in range(whole, n):
            s0, b0 = scores[j], some[j]
            for i in range(width):
                made[i] += s0[i] * b0


@part
def _gather(scores: np.ndarray, a: np.ndarray, width: int, out: np.ndarray) -> None:
    """out[c, j] += Σ_i scores[j, i] a[c, i]; the number of channels is a multiple of 4."""
    d, n = out.shape
    for c in range(0, d, 4):
        a0, a1, a2, a3 = a[c], a[c + 1], a[c + 2], a[c + 3]
        for j in range(n):
            row = scores[j]
            s0 = s1 = s2 = s3 = np.float32(0)
            for i in range(width):
                s0 += row[i] * a0[i]
                s1 += row[i] * a1[i]
                s2 += row[i] * a2[i]
                s3 += row[i] * a3[i]
            out[c, j] += s0
            out[c + 1, j] += s1
            out[c + 2, j] += s2
            out[c + 3, j] += s3


@part
def _score(
    q: np.ndarray, k: np.ndarray, scale: float, bias: np.ndarray, regions: np.ndarray, first: int, width: int,
    scores: np.ndarray,
) -> None:  # fmt: skip
    """scores[j, i] = kⱼ · qᵢ scale + bias, masked where the two are of different regions."""
    _multiply(q, k, width, scores)
    scale = np.float32(scale)
    for j in range(k.shape[1]):
        row, some = scores[j], bias[j, first : first + width]
        for i in range(width):
            row[i] = row[i] * scale + some[i]
    if len(regions) > 0:
        theirs = regions[first : first + width]
        for j in range(k.shape[1]):
            row, mine = scores[j], regions[j]
            for i in range(width):
                row[i] += MASKED if theirs[i] != mine else np.float32(0)


@loop
def attend(
    tokens: np.ndarray, padding: np.ndarray, places: np.ndarray, regions: np.ndarray, bias: np.ndarray, scale: float,
    start: int, stop: int, out: np.ndarray, log_totals: np.ndarray,
) -> None:  # fmt: skip
    """softmax(q kᵀ scale + bias + mask) v in the windows start ... stop − 1.

    Args:
        tokens: (T, 3 C).
        padding: (3 C,), float32.
        places: (windows, n), int32.
        regions: (windows, n), int32: tokens of different regions do not see each other; (windows, 0) if all do.
        bias: (heads, n, n), float32, as (head, key, query).
        scale: of the scores.
        start: first window.
        stop: after the last window.
        out: (T, C) to fill.
        log_totals: (windows, heads, n), float32, to fill with the logarithm of each softmax's denominator.
    """
    heads, n, _ = bias.shape
    channels = out.shape[1]
    d = channels // heads
    k, v = np.empty((d, n), np.float32), np.empty((d, n), np.float32)
    q, made = np.empty((d, QUERIES), np.float32), np.empty((d, QUERIES), np.float32)
    scores = np.empty((n, QUERIES), np.float32)
    highest, total = np.empty(QUERIES, np.float32), np.empty(QUERIES, np.float32)
    for window in range(start, stop):
        at, region = places[window], regions[window]
        for head in range(heads):
            column = head * d
            _load(tokens, padding, at, channels + column, k)
            _load(tokens, padding, at, 2 * channels + column, v)
            for first in range(0, n, QUERIES):
                width = min(QUERIES, n - first)
                some = at[first : first + width]
                _load(tokens, padding, some, column, q)
                _score(q, k, scale, bias[head], region, first, width, scores)
                for i in range(width):
                    highest[i] = scores[0, i]
                    total[i] = 0
                for j in range(1, n):
                    row = scores[j]
                    for i in range(width):
                        highest[i] = max(highest[i], row[i])
                for j in range(n):
                    row = scores[j]
                    for i in range(width):
                        value = exponential(row[i] - highest[i])
                        row[i] = value
                        total[i] += value
                _combine(scores, v, width, made)
                log_total = log_totals[window, head, first : first + width]
                for i in range(width):
                    log_total[i] = highest[i] + np.log(total[i])
                    token = some[i]
                    if token >= 0:
                        for c in range(d):
                            put(out, token, column + c, made[c, i] / total[i])


@loop
def attend_back(
    tokens: np.ndarray, padding: np.ndarray, places: np.ndarray, regions: np.ndarray, bias: np.ndarray, scale: float,
    out: np.ndarray, log_totals: np.ndarray, gradient: np.ndarray, start: int, stop: int,
    of_tokens: np.ndarray, of_padding: np.ndarray, of_bias: np.ndarray,
) -> None:  # fmt: skip
    """The gradients of `attend` (Dao et al. 2022) for the windows start ... stop − 1.

    Args:
        out: what `attend` made, (T, C).
        gradient: of `out`.
        of_tokens: (T, 3 C) to fill.
        of_padding: (3 C,), float32, added to.
        of_bias: (heads, n, n), float32, added to.
    """
    heads, n, _ = bias.shape
    channels = out.shape[1]
    d = channels // heads
    k, v = np.empty((d, n), np.float32), np.empty((d, n), np.float32)
    of_k, of_v = np.empty((d, n), np.float32), np.empty((d, n), np.float32)
    q, slope = np.empty((d, QUERIES), np.float32), np.empty((d, QUERIES), np.float32)
    of_q, dots = np.empty((d, QUERIES), np.float32), np.empty(QUERIES, np.float32)
    scores, slopes = np.empty((n, QUERIES), np.float32), np.empty((n, QUERIES), np.float32)
    for window in range(start, stop):
        at, region = places[window], regions[window]
        for head in range(heads):
            column = head * d
            _load(tokens, padding, at, channels + column, k)
            _load(tokens, padding, at, 2 * channels + column, v)
            of_k[:] = 0
            of_v[:] = 0
            for first in range(0, n, QUERIES):
                width = min(QUERIES, n - first)
                some = at[first : first + width]
                _load(tokens, padding, some, column, q)
                for i in range(width):
                    token = some[i]
                    dot = np.float32(0)
                    for c in range(d):
                        g = np.float32(0)
                        if token >= 0:
                            g = get(gradient, token, column + c)
                            dot += g * get(out, token, column + c)
                        slope[c, i] = g
                    dots[i] = dot
                _score(q, k, scale, bias[head], region, first, width, scores)
                _multiply(slope, v, width, slopes)
                log_total = log_totals[window, head, first : first + width]
                for j in range(n):
                    row, other = scores[j], slopes[j]
                    for i in range(width):
                        row[i] = exponential(row[i] - log_total[i])
                    for i in range(width):
                        other[i] = row[i] * (other[i] - dots[i])
                _gather(scores, slope, width, of_v)
                for j in range(n):
                    other, total = slopes[j], of_bias[head, j, first : first + width]
                    for i in range(width):
                        total[i] += other[i]
                _combine(slopes, k, width, of_q)
                _gather(slopes, q, width, of_k)
                for i in range(width):
                    token = some[i]
                    if token >= 0:
                        for c in range(d):
                            put(of_tokens, token, column + c, of_q[c, i] * scale)
            for i in range(n):
                token = at[i]
                for c in range(d):
                    b, e = channels + column + c, 2 * channels + column + c
                    if token < 0:
                        of_padding[b] += of_k[c, i] * scale
                        of_padding[e] += of_v[c, i]
                    else:
                        put(of_tokens, token, b, of_k[c, i] * scale)
                        put(of_tokens, token, e, of_v[c, i])
