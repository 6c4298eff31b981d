"""Attention in windows, compiled by Numba: one head of one window at a time, whose scores stay in a core's cache.

Tokens are (T, 3 C): queries, keys and values of all heads, as the linear layer outputs them. A window is a row of
`indices`, the indices of its n tokens, −1 beyond the end of the grid; such a position has the query, key and value
`padding`. Scores are stored as (key, query), so that loops over queries run along memory and vector instructions need
no horizontal sums. The queries of a window are processed `QUERIES` at a time.
"""

from __future__ import annotations

import numpy as np

from raylift.numerics.bfloat16 import exponential, get, put
from raylift.numerics.compiled import loop, part

QUERIES = 64
MASKED = np.float32(-100)  # added to the score of tokens of different regions, as in Swin Transformer


@part
def _load(tokens: np.ndarray, padding: np.ndarray, indices: np.ndarray, column: int, columns: np.ndarray) -> None:
    """Copy a head's queries, keys or values into `columns` (d, n)."""
    d = len(columns)
    for i in range(len(indices)):
        token = indices[i]
        if token < 0:
            for c in range(d):
                columns[c, i] = padding[column + c]
        else:
            for c in range(d):
                columns[c, i] = get(tokens, token, column + c)


@part
def _multiply(a: np.ndarray, b: np.ndarray, width: int, out: np.ndarray) -> None:
    """Compute out[j, i] = Σ_c b[c, j] a[c, i]; the number of channels is a multiple of 4."""
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
    """Compute out[c, i] = Σ_j scores[j, i] b[c, j]."""
    d, n = b.shape
    for c in range(d):
        total, channel = out[c], b[c]
        for i in range(width):
            total[i] = 0
        whole = n - n % 4
        for j in range(0, whole, 4):
            s0, s1, s2, s3 = scores[j], scores[j + 1], scores[j + 2], scores[j + 3]
            b0, b1, b2, b3 = channel[j], channel[j + 1], channel[j + 2], channel[j + 3]
            for i in range(width):
                total[i] += s0[i] * b0 + s1[i] * b1 + s2[i] * b2 + s3[i] * b3
        for j in range(whole, n):
            s0, b0 = scores[j], channel[j]
            for i in range(width):
                total[i] += s0[i] * b0


@part
def _gather(scores: np.ndarray, a: np.ndarray, width: int, out: np.ndarray) -> None:
    """Add Σ_i scores[j, i] a[c, i] to out[c, j]; the number of channels is a multiple of 4."""
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
    """Compute scores[j, i] = kⱼ · qᵢ scale + bias, masked where the two tokens are of different regions."""
    _multiply(q, k, width, scores)
    scale = np.float32(scale)
    for j in range(k.shape[1]):
        row, bias_row = scores[j], bias[j, first : first + width]
        for i in range(width):
            row[i] = row[i] * scale + bias_row[i]
    if len(regions) > 0:
        query_regions = regions[first : first + width]
        for j in range(k.shape[1]):
            row, key_region = scores[j], regions[j]
            for i in range(width):
                row[i] += MASKED if query_regions[i] != key_region else np.float32(0)


@loop
def attend(  # noqa: C901 - one compiled loop
    tokens: np.ndarray, padding: np.ndarray, indices: np.ndarray, regions: np.ndarray, bias: np.ndarray, scale: float,
    start: int, stop: int, out: np.ndarray, log_totals: np.ndarray,
) -> None:  # fmt: skip
    """Compute softmax(q kᵀ scale + bias + mask) v in the windows start ... stop − 1.

    Args:
        tokens: (T, 3 C).
        padding: (3 C,), float32.
        indices: (windows, n), int32.
        regions: (windows, n), int32: tokens of different regions do not attend to each other; (windows, 0) if all do.
        bias: (heads, n, n), float32, as (head, key, query).
        scale: factor of the scores.
        start: first window.
        stop: one after the last window.
        out: (T, C), filled with the tokens.
        log_totals: (windows, heads, n), float32, filled with the logarithm of each softmax's denominator.
    """
    heads, n, _ = bias.shape
    channels = out.shape[1]
    d = channels // heads
    k, v = np.empty((d, n), np.float32), np.empty((d, n), np.float32)
    q, weighted = np.empty((d, QUERIES), np.float32), np.empty((d, QUERIES), np.float32)
    scores = np.empty((n, QUERIES), np.float32)
    highest, total = np.empty(QUERIES, np.float32), np.empty(QUERIES, np.float32)
    for window in range(start, stop):
        window_tokens, region = indices[window], regions[window]
        for head in range(heads):
            column = head * d
            _load(tokens, padding, window_tokens, channels + column, k)
            _load(tokens, padding, window_tokens, 2 * channels + column, v)
            for first in range(0, n, QUERIES):
                width = min(QUERIES, n - first)
                query_tokens = window_tokens[first : first + width]
                _load(tokens, padding, query_tokens, column, q)
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
                _combine(scores, v, width, weighted)
                log_total = log_totals[window, head, first : first + width]
                for i in range(width):
                    log_total[i] = highest[i] + np.log(total[i])
                    token = query_tokens[i]
                    if token >= 0:
                        for c in range(d):
                            put(out, token, column + c, weighted[c, i] / total[i])


@loop
def attend_back(  # noqa: C901 - one compiled loop
    tokens: np.ndarray, padding: np.ndarray, indices: np.ndarray, regions: np.ndarray, bias: np.ndarray, scale: float,
    out: np.ndarray, log_totals: np.ndarray, gradient: np.ndarray, start: int, stop: int,
    grad_tokens: np.ndarray, grad_padding: np.ndarray, grad_bias: np.ndarray,
) -> None:  # fmt: skip
    """Compute the gradients of `attend` (Dao et al. 2022) for the windows start ... stop − 1.

    Args:
        tokens: as for `attend`.
        padding: as for `attend`.
        indices: as for `attend`.
        regions: as for `attend`.
        bias: as for `attend`.
        scale: as for `attend`.
        out: result of `attend`, (T, C).
        log_totals: result of `attend`.
        gradient: gradient of `out`, (T, C).
        start: first window.
        stop: one after the last window.
        grad_tokens: (T, 3 C), filled with the gradient of the tokens.
        grad_padding: (3 C,), float32; the gradient of the padding is added to it.
        grad_bias: (heads, n, n), float32; the gradient of the bias is added to it.
    """
    heads, n, _ = bias.shape
    channels = out.shape[1]
    d = channels // heads
    k, v = np.empty((d, n), np.float32), np.empty((d, n), np.float32)
    grad_k, grad_v = np.empty((d, n), np.float32), np.empty((d, n), np.float32)
    q, slope = np.empty((d, QUERIES), np.float32), np.empty((d, QUERIES), np.float32)
    grad_q, dots = np.empty((d, QUERIES), np.float32), np.empty(QUERIES, np.float32)
    scores, slopes = np.empty((n, QUERIES), np.float32), np.empty((n, QUERIES), np.float32)
    for window in range(start, stop):
        window_tokens, region = indices[window], regions[window]
        for head in range(heads):
            column = head * d
            _load(tokens, padding, window_tokens, channels + column, k)
            _load(tokens, padding, window_tokens, 2 * channels + column, v)
            grad_k[:] = 0
            grad_v[:] = 0
            for first in range(0, n, QUERIES):
                width = min(QUERIES, n - first)
                query_tokens = window_tokens[first : first + width]
                _load(tokens, padding, query_tokens, column, q)
                for i in range(width):
                    token = query_tokens[i]
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
                _gather(scores, slope, width, grad_v)
                for j in range(n):
                    other, total = slopes[j], grad_bias[head, j, first : first + width]
                    for i in range(width):
                        total[i] += other[i]
                _combine(slopes, k, width, grad_q)
                _gather(slopes, q, width, grad_k)
                for i in range(width):
                    token = query_tokens[i]
                    if token >= 0:
                        for c in range(d):
                            put(grad_tokens, token, column + c, grad_q[c, i] * scale)
            for i in range(n):
                token = window_tokens[i]
                for c in range(d):
                    b, e = channels + column + c, 2 * channels + column + c
                    if token < 0:
                        grad_padding[b] += grad_k[c, i] * scale
                        grad_padding[e] += grad_v[c, i]
                    else:
                        put(grad_tokens, token, b, grad_k[c, i] * scale)
                        put(grad_tokens, token, e, grad_v[c, i])
