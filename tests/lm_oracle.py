"""The arithmetic of docs/entropy.md in numpy, one operation after the other: what every form and
every instruction set of the native language model must equal bit for bit. Slow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from language_models import CodeArray, Sizes

Floats = npt.NDArray[np.float32]
F = np.float32
ZERO = F(0)


def fma(a: Any, b: Any, c: Any) -> Floats:
    """a * b + c rounded once: in float64 the product is exact and the sum is rounded to odd, which
    float32's rounding does not mistake for a tie."""
    product = np.asarray(a, np.float64) * np.asarray(b, np.float64)
    addend = np.broadcast_to(np.asarray(c, np.float64), product.shape)
    total = product + addend
    part = total - product
    error = (product - (total - part)) + (addend - part)
    even = (total.view(np.int64) & 1) == 0
    nudged = np.nextafter(total, np.where(error > 0, np.inf, -np.inf))
    return np.where((error != 0) & even, nudged, total).astype(F)


def chain(rows: Floats, weight: Floats, start: Floats) -> Floats:
    """rows [m, k] times weight [k, n] from start [n]."""
    out = np.broadcast_to(start, (len(rows), weight.shape[1])).astype(F)
    for k in range(len(weight)):
        out = fma(rows[:, k : k + 1], weight[k], out)
    return out


def folded(lanes: Floats) -> Floats:
    width = 8
    while width:
        lanes = lanes[:width] + lanes[width : 2 * width]
        width //= 2
    return lanes[0]


def fixed_sum(x: Floats) -> Floats:
    lanes = np.zeros(16, F)
    for i in range(0, len(x), 16):
        lanes[: len(x[i : i + 16])] += x[i : i + 16]
    return folded(lanes)


def layer_norm(x: Floats, scale: Floats, offset: Floats) -> Floats:
    out = []
    for row in x:
        mean = fixed_sum(row) / F(len(row))
        lanes = np.zeros(16, F)
        for i in range(0, len(row), 16):
            d = row[i : i + 16] - mean
            lanes[: len(d)] = fma(d, d, lanes[: len(d)])
        variance = folded(lanes) / F(len(row))
        factor = F(1) / np.sqrt(variance + F(1e-5))
        out.append(fma(row - mean, scale * factor, offset))
    return np.stack(out)


def exp_negative(high: Floats, low: Any = ZERO) -> Floats:
    high = np.maximum(high, F(-87))
    t = fma(high, F(1.44269504), F(12582912))
    n = t - F(12582912)
    r = fma(n, F(-0.693145752), high)
    r = fma(n, F(-1.42860677e-6), r) + low
    p = fma(F(1.98412698e-4), r, F(1.38888889e-3))
    for c in (8.33333333e-3, 4.16666667e-2, 1.66666667e-1, 0.5):
        p = fma(p, r, F(c))
    scale = np.exp2(n.astype(np.float64)).astype(F)
    return fma(fma(p, r * r, r), scale, scale)


def gelu(x: Floats) -> Floats:
    t = np.minimum(np.abs(x), F(13))
    w = F(1) / (t + F(3))
    v = fma(w, F(7.3846154), F(-1.4615384))
    p = fma(F(-5.215119e-5), v, F(1.17629934e-4))
    for c in (5.779081e-4, -1.8218006e-3, -7.069701e-3, 1.9920705e-2, 0.1676522):
        p = fma(p, v, F(c))
    for c in (0.48770818, 0.8329671):
        p = fma(p, v, F(c))
    square = t * t
    rest = fma(t, t, -square)
    below = p * w * exp_negative(F(-0.5) * square, F(-0.5) * rest)
    y = np.where(x > 0, fma(-x, below, x), x * below)
    return np.where(x < F(-12.5), F(0), y)


def softmax(x: Floats) -> tuple[Floats, Floats]:
    """The terms of one row, and their sum."""
    terms = exp_negative(x - x.max())
    return terms, fixed_sum(terms)


def positions(first: int, rows: int, dim: int) -> Floats:
    half = dim // 2
    phases = [[(first + t) * 10000 ** (-i / (half - 1)) for i in range(half)] for t in range(rows)]
    table = [[*map(math.cos, row), *map(math.sin, row)] for row in phases]
    return np.array(table).astype(F)


def attention(qkv: Floats, first: Floats, sizes: Sizes) -> Floats:
    """qkv [steps, 3 * dim] of a stream from its start; `first` [3 * dim] is the entry before."""
    dim, wide = sizes.dim, sizes.dim // sizes.heads
    entries = np.concatenate([first[None], qkv])
    scale = F(1) / np.sqrt(F(wide))
    out = np.zeros((len(qkv), dim), F)
    for t in range(len(qkv)):
        seen = entries[max(0, t + 1 - sizes.past) : t + 2]
        for h in range(sizes.heads):
            part = slice(h * wide, (h + 1) * wide)
            query, keys, values = (
                qkv[t, :dim][part],
                seen[:, dim : 2 * dim][:, part],
                seen[:, 2 * dim :][:, part],
            )
            scores = chain(query[None], keys.T, np.zeros(len(seen), F))[0] * scale
            terms, total = softmax(scores)
            out[t, part] = chain(terms[None], values, np.zeros(wide, F))[0] / total
    return out


def probabilities(weights: dict[str, Any], sizes: Sizes, codes: CodeArray) -> Floats:
    """float32 [steps, n_q, entries] of the codes [n_q, steps] of a new stream."""
    n_q, steps = codes.shape
    before = np.zeros((n_q, steps), np.int64)
    before[:, 1:] = codes[:, :-1].astype(np.int64) + 1
    x = weights["books"][0][0][before[0]]
    for k in range(1, n_q):
        x = x + weights["books"][k][0][before[k]]
    x = layer_norm(x, *weights["norm"]) + positions(0, steps, sizes.dim)
    for layer in weights["layers"]:
        qkv, qkv_bias, out, out_bias, up, up_bias, down, down_bias = layer[:8]
        mixed = attention(chain(x, qkv, qkv_bias), qkv_bias, sizes)
        x = layer_norm(chain(mixed, out, out_bias) + x, *layer[8:10])
        hidden = gelu(chain(x, up, up_bias))
        x = layer_norm(chain(hidden, down, down_bias) + x, *layer[10:])
    result = np.empty((steps, n_q, sizes.entries), F)
    for k in range(n_q):
        for t, logits in enumerate(chain(x, *weights["books"][k][1:])):
            terms, total = softmax(logits)
            result[t, k] = terms / total
    return result
