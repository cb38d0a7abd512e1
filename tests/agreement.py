"""Measures of agreement with a reference: equal codes, near-ties, signal-to-noise ratio."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# A nearest entry that wins by less than this share of its squared distance may lose under another
# summation order.
NEAR_TIE = 1e-4

AnyArray = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Agreement:
    """How codes compare: number of codes, frames that differ, and the largest margin overturned."""

    codes: int
    frames_differing: int
    widest_margin: float

    @property
    def share_equal(self) -> float:
        """Share of equal codes, counting only the first difference of a frame.

        What follows it quantises another residual.
        """
        return 1.0 - self.frames_differing / self.codes

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            self.codes + other.codes,
            self.frames_differing + other.frames_differing,
            max(self.widest_margin, other.widest_margin),
        )


NOTHING = Agreement(0, 0, 0.0)


def compare_codes(
    expected: AnyArray, found: AnyArray, latents: AnyArray, codebooks: AnyArray
) -> Agreement:
    """Compare codes [K, F], with the margins by which the expected ones won.

    `latents` [D, F] are what the reference quantised, `codebooks` [n_q, N, D] its entries.
    """
    assert expected.shape == found.shape, f"{expected.shape} codes expected, {found.shape} found"
    differs = expected != found
    frames = np.flatnonzero(differs.any(axis=0))
    widest = 0.0
    for frame in frames:
        level = int(differs[:, frame].argmax())
        residual = latents[:, frame].astype(np.float64)
        for earlier in range(level):
            residual = residual - codebooks[earlier, expected[earlier, frame]].astype(np.float64)
        distances = [
            float(((residual - codebooks[level, row[level, frame]].astype(np.float64)) ** 2).sum())
            for row in (expected, found)
        ]
        widest = max(widest, abs(distances[1] - distances[0]) / max(min(distances), 1e-30))
    return Agreement(expected.size, len(frames), widest)


def snr_db(expected: AnyArray, found: AnyArray) -> float:
    """Signal-to-noise ratio of `found` in dB; infinite where the two are equal."""
    assert expected.shape == found.shape, f"shape {expected.shape} expected, {found.shape} found"
    signal = expected.astype(np.float64)
    noise = found.astype(np.float64) - signal
    noise_power = float((noise**2).sum())
    if noise_power == 0.0:
        return float("inf")
    return float(10 * np.log10((signal**2).sum() / noise_power))
