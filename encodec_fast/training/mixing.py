"""What is done to the recordings of a training item: rooms, directions, levels (paper A.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from encodec_fast.training.data_settings import ReverbSettings
from encodec_fast.training.reading import Float32

LOUDEST = 1.0  # full scale
# Ratio of direct to reverberated energy of generated impulse responses, in dB.
_DIRECT_DB = (0.0, 12.0)


def make_impulse_response(
    settings: ReverbSettings, sample_rate: int, channels: int, random: np.random.Generator
) -> Float32:
    """A room's impulse response, float32 [channels, n]: 1 at time 0, then decaying noise."""
    rt60 = random.uniform(settings.rt60[0], settings.rt60[1])
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


def pan(wave: Float32, random: np.random.Generator) -> Float32:
    """float32 [2, n] in a random direction: gains of constant power, from one channel alone over
    both at 1 to the other alone."""
    angle = random.uniform(0, math.pi / 2)
    gains = np.array([[math.cos(angle)], [math.sin(angle)]]) * math.sqrt(2)
    return (wave * gains).astype(np.float32)


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
