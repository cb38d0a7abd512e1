"""Static tables of the entropy coder: one interval width per code, from how often it occurs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TOTAL = 1 << 24  # what the widths of one distribution may add up to


def count_codes(codes: NDArray[np.uint16], entries: int) -> NDArray[np.int64]:
    """How often each code occurs: codes [K, F] in 0..entries-1 to int64 [K, entries]."""
    return np.stack([np.bincount(row, minlength=entries) for row in codes]).astype(np.int64)


def balanced(counts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The counts [K, entries] of several kinds of sound as one, in which they weigh the same."""
    total = sum(int(kind[0].sum()) for kind in counts)
    shares = np.mean([kind / kind.sum(axis=1, keepdims=True) for kind in counts], axis=0)
    result: NDArray[np.int64] = np.rint(shares * total).astype(np.int64)
    return result


def code_widths(p: NDArray[np.float32], entries: int) -> NDArray[np.int64]:
    """Interval widths int64 of codes with probabilities float32, of distributions over `entries`.

    The rule of the version 1 coder: 1 + int(p * (2^24 - 2 entries)) with one float32 product.
    """
    room = np.float32(TOTAL - 2 * entries)
    widths: NDArray[np.int64] = 1 + (p.astype(np.float32, copy=False) * room).astype(np.int64)
    return widths


def interval_widths(probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
    """Interval widths int64 of whole distributions, float32 [..., n].

    At least 1 each (see `code_widths`), at most 2^24 together. Raises ValueError for entries
    outside 0..1 or that are not finite, for n outside 2..65536, and for sums that leave no room.
    """
    n = probabilities.shape[-1]
    if not 2 <= n <= 65536:
        raise ValueError(f"probabilities: expected 2 to 65536 entries, found {n}")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("probabilities: expected values from 0 to 1")
    widths = code_widths(probabilities, n)
    if (widths.sum(axis=-1) > TOTAL).any():
        raise ValueError("probabilities: they add up to more than 1")
    return widths


def table_widths(counts: NDArray[np.int64], smoothing: float = 1.0) -> NDArray[np.int64]:
    """Widths int64 [K, N] of tables for codes that occurred `counts` times, int64 [K, N].

    `smoothing` is added to every count, so that a code that never occurred stays affordable. Raises
    ValueError for negative counts and a smoothing that is not positive.
    """
    if counts.ndim != 2 or (counts < 0).any():
        raise ValueError(f"counts: expected [codebooks, entries] from 0, found {counts.shape}")
    if not smoothing > 0:
        raise ValueError(f"smoothing: expected a positive number, found {smoothing}")
    smoothed = counts + smoothing
    shares = smoothed / smoothed.sum(axis=1, keepdims=True)
    return interval_widths(shares.astype(np.float32))


def width_bits(widths: NDArray[np.int64]) -> NDArray[np.float64]:
    """What the range coder spends on symbols of these widths, in bits: log2(2^24 / width)."""
    bits: NDArray[np.float64] = 24 - np.log2(widths)
    return bits


def perplexity(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64 [K]: 2 to the entropy of each codebook's use; its entries where all are used alike,
    1 where it has collapsed to one of them."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    entropy = -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=1)
    result: NDArray[np.float64] = 2**entropy
    return result
