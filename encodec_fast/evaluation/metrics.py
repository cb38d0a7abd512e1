"""Objective measures of a decoded recording against its original: SI-SNR and spectral distances.

Written in numpy and apart from the training losses: figures stay comparable when a loss changes.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from encodec_fast._native import Audio

Array = NDArray[np.float32]

RESOLUTIONS = (512, 1024, 2048)  # windows of the STFT distance, in samples
N_MELS = 80
MEL_SECONDS = 0.043  # the mel window is the power of two nearest to this
# Below 80 dB under a full-scale sine neither side counts: inaudible at any usual level, and without
# a floor the empty band above a low-passed original would outweigh all that is heard.
FLOOR = 1e-4


class StftDistance(NamedTuple):
    """Means over RESOLUTIONS and channels: spectral convergence and log magnitude (natural)."""

    convergence: float
    log_magnitude: float


def si_snr(x: Audio, y: Audio, sample_rate: int, seconds: float = 5.0) -> float:
    """Scale-invariant signal-to-noise ratio in dB of y against x, both float32 [channels, samples].

    Framed as the published figures are (audiocraft's sisnr): frames of `seconds` with half overlap,
    zeros after the end, each centred; the mean over channels and frames. Higher is better.
    """
    size = int(seconds * sample_rate)
    hop = size // 2
    count = math.ceil(max(0, x.shape[-1] - size) / hop) + 1
    total = (count - 1) * hop + size

    def frames(signal: Audio) -> NDArray[np.float64]:
        padded = np.pad(signal.astype(np.float64), ((0, 0), (0, total - signal.shape[-1])))
        cut = np.lib.stride_tricks.sliding_window_view(padded, size, axis=-1)[:, ::hop]
        return np.asarray(cut - cut.mean(axis=-1, keepdims=True))

    target, estimate = frames(x), frames(y)
    floor = float(np.finfo(np.float32).eps) * size
    energy = np.square(target).sum(axis=-1, keepdims=True)
    scale = (estimate * target).sum(axis=-1, keepdims=True) / (floor + energy)
    projection = scale * target
    noise = np.square(estimate - projection).sum(axis=-1)
    signal = np.square(projection).sum(axis=-1)
    return float(10 * (np.log10(floor + signal) - np.log10(floor + noise)).mean())


class Spectra:
    """The magnitudes of a recording that the distances compare; float32 [channels, samples] at
    `sample_rate` Hz."""

    def __init__(self, wave: Audio, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.mel_size = 2 ** round(math.log2(MEL_SECONDS * sample_rate))
        self.by_size = {
            size: [magnitudes(channel, size) for channel in wave]
            for size in sorted({self.mel_size, *RESOLUTIONS})
        }


def log_mel_distance(x: Spectra, y: Spectra) -> float:
    """Mean absolute difference in dB of the mel spectra of two recordings of the same shape.

    N_MELS bands from 0 Hz to half the rate, Hann windows of the power of two nearest to 43 ms (1024
    samples at 24 kHz) with three quarters overlap, levels floored at FLOOR. Lower is better.
    """
    size = x.mel_size
    filters = _mel_filters(x.sample_rate, size)
    distances = []
    for pair in zip(x.by_size[size], y.by_size[size], strict=True):
        bands = [np.maximum(np.square(channel) @ filters, FLOOR**2) for channel in pair]
        distances.append(10 * np.abs(np.log10(bands[0]) - np.log10(bands[1])).mean())
    return float(np.mean(distances))


def stft_distance(x: Spectra, y: Spectra) -> StftDistance:
    """Multi-resolution STFT distance of y from x, recordings of the same shape.

    Per resolution |S_x - S_y| / |S_x| (Frobenius norms) and the mean absolute difference of the
    natural logarithms of the magnitudes, floored at FLOOR (Parallel WaveGAN, arXiv 1910.11480,
    equations 4 and 5; Hann windows, three quarters overlap). Lower is better.
    """
    convergence, log_magnitude = [], []
    for size in RESOLUTIONS:
        for a, b in zip(x.by_size[size], y.by_size[size], strict=True):
            convergence.append(np.linalg.norm(a - b) / max(float(np.linalg.norm(a)), FLOOR))
            # One logarithm of the quotient, half the work of two.
            quotient = np.maximum(a, FLOOR) / np.maximum(b, FLOOR)
            log_magnitude.append(np.abs(np.log(quotient)).mean())
    return StftDistance(float(np.mean(convergence)), float(np.mean(log_magnitude)))


def magnitudes(signal: Array, size: int) -> Array:
    """Magnitudes float32 [frames, size // 2 + 1] of float32 [samples]; a full-scale sine is 1.

    Hann windows of `size` samples every quarter of it, the first centred on sample 0, zeros outside
    the signal.
    """
    hop = size // 4
    window = np.hanning(size + 1)[:-1]
    window = (window * 2 / window.sum()).astype(np.float32)
    padded = np.pad(signal, (size // 2, size // 2 + -len(signal) % hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop] * window
    return np.abs(np.fft.rfft(frames)).astype(np.float32)


@lru_cache
def _mel_filters(sample_rate: int, size: int) -> Array:
    """Triangles float32 [size // 2 + 1, N_MELS] on the mel scale 2595 log10(1 + f / 700), each of
    sum 1, so that a band's power is a mean over its bins."""
    top = 2595 * math.log10(1 + sample_rate / 2 / 700)
    points = 700 * (10 ** (np.linspace(0, top, N_MELS + 2) / 2595) - 1)
    bins = np.linspace(0, sample_rate / 2, size // 2 + 1)[:, None]
    rising = (bins - points[:-2]) / (points[1:-1] - points[:-2])
    falling = (points[2:] - bins) / (points[2:] - points[1:-1])
    filters = np.maximum(np.minimum(rising, falling), 0)
    sums = filters.sum(axis=0)
    return (filters / np.where(sums > 0, sums, 1)).astype(np.float32)
