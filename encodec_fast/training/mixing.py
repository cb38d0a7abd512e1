"""How recordings become training items: mixing strategies, levels, reverberation (paper A.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
LOUDEST = 1.0
# Ratio of direct to reverberated energy of generated impulse responses, in dB.
_DIRECT_DB = (0.0, 12.0)


@dataclass(frozen=True)
class MixingStrategy:
    """With `probability` an item is the sum of `sources` recordings, each of one of `kinds` (of any
    kind where there are none)."""

    probability: float = 1.0
    sources: int = 1
    kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1:
            raise ValueError(f"probability: expected above 0, at most 1, found {self.probability}")
        if not 1 <= self.sources <= 16:
            raise ValueError(f"sources: expected 1 to 16, found {self.sources}")


# s1 to s4 of the paper (4.1, A.1), with its datasets by kind.
PAPER_MIXING = (
    MixingStrategy(0.32, 1, ("music",)),
    MixingStrategy(0.32, 1, ("speech", "sound")),
    MixingStrategy(0.24, 2),
    MixingStrategy(0.12, 3, ("speech", "sound")),
)


@dataclass(frozen=True)
class ReverbSettings:
    """With `probability` an item is played in a room, except a single recording of `dry_kinds`.

    folder: impulse responses, one a file; where it is None they are made: noise that decays by
    60 dB within a time of `rt60` seconds, after the direct sound.
    """

    probability: float = 0.2
    folder: str | None = None
    rt60: tuple[float, ...] = (0.3, 1.3)
    dry_kinds: tuple[str, ...] = ("music",)

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability: expected 0 to 1, found {self.probability}")
        if len(self.rt60) != 2 or not 0 < self.rt60[0] <= self.rt60[1] <= 10:
            raise ValueError(f"rt60: expected two rising times up to 10 s, found {self.rt60}")


def make_impulse_response(
    settings: ReverbSettings, sample_rate: int, channels: int, random: np.random.Generator
) -> Float32:
    """A room's impulse response, float32 [channels, n]: 1 at time 0, then decaying noise."""
    rt60 = random.uniform(*settings.rt60)
    time = np.arange(1, round(rt60 * sample_rate)) / sample_rate
    tail = random.standard_normal((channels, len(time))) * 10 ** (-3 * time / rt60)
    energy = 10 ** (-random.uniform(*_DIRECT_DB) / 10)
    tail *= np.sqrt(energy / np.maximum(np.square(tail).sum(axis=1, keepdims=True), 1e-12))
    return np.concatenate([np.ones((channels, 1)), tail], axis=1).astype(np.float32)


def reverberate(wave: Float32, response: Float32) -> Float32:
    """float32 [C, n] in a room with an impulse response [C, m], as loud (mean square) as it was.

    The direct sound, the largest sample of the response, stays where it is.
    """
    delay = int(np.abs(response).max(axis=0).argmax())
    n = wave.shape[1]
    size = 1 << math.ceil(math.log2(n + response.shape[1]))
    wet = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(response, size), size)
    wet = wet[:, delay : delay + n]
    level = math.sqrt(float(np.square(wave).mean()) / max(float(np.square(wet).mean()), 1e-20))
    return (wet * level).astype(np.float32)


def mix(
    waves: Sequence[Float32], gain_db: Sequence[float], tries: int, random: np.random.Generator
) -> Float32 | None:
    """The sum of waves [C, n], each with a random gain in dB; None where `tries` sums clip.

    A sum with a sample beyond full scale is rejected, as in the paper; only its gains are drawn
    again, so that loud recordings are not rarer than quiet ones.
    """
    for _ in range(tries):
        gains = 10 ** (random.uniform(gain_db[0], gain_db[1], len(waves)) / 20)
        total = np.zeros_like(waves[0])
        for wave, gain in zip(waves, gains, strict=True):
            total += wave * np.float32(gain)
        if float(np.abs(total).max()) <= LOUDEST:
            return total
    return None
