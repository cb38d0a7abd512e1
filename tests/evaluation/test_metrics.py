"""Measures against loops that follow their formulas, and on signals whose result is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from signals import synthetic_clip

from encodec_fast.evaluation import metrics
from encodec_fast.evaluation.metrics import Spectra, StftDistance, si_snr

RATE = 24000


def log_mel_distance(x: np.ndarray, y: np.ndarray) -> float:
    return metrics.log_mel_distance(Spectra(x, RATE), Spectra(y, RATE))


def stft_distance(x: np.ndarray, y: np.ndarray) -> StftDistance:
    return metrics.stft_distance(Spectra(x, RATE), Spectra(y, RATE))


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, RATE)).astype(np.float32)


def plain_si_snr(x: np.ndarray, y: np.ndarray, size: int) -> float:
    """Section 8.1 of the specification, frame by frame."""
    values = []
    for a, b in zip(x.astype(np.float64), y.astype(np.float64), strict=True):
        start = 0
        while True:
            s, e = np.zeros(size), np.zeros(size)
            s[: len(a[start : start + size])] = a[start : start + size]
            e[: len(b[start : start + size])] = b[start : start + size]
            s, e = s - s.mean(), e - e.mean()
            floor = np.finfo(np.float32).eps * size
            projection = e.dot(s) * s / (floor + s.dot(s))
            rest = e - projection
            top, bottom = floor + projection.dot(projection), floor + rest.dot(rest)
            values.append(10 * (math.log10(top) - math.log10(bottom)))
            if start + size >= len(a):
                break
            start += size // 2
    return float(np.mean(values))


@pytest.mark.parametrize("length", [1, 999, 1000, 1001, 1500, 1501, 4321])
def test_si_snr_against_a_loop(noise: np.ndarray, length: int) -> None:
    x = noise[:, :length]
    y = 0.3 * x + 0.1 * np.cumsum(x, axis=1) + 0.2
    y = y.astype(np.float32)
    assert si_snr(x, y, 1000, seconds=1.0) == pytest.approx(plain_si_snr(x, y, 1000), abs=1e-9)


def test_si_snr_ignores_gain_and_offset() -> None:
    rng = np.random.default_rng(2)
    x, noise = rng.standard_normal((2, 1, RATE * 5)).astype(np.float32)
    assert si_snr(x, x + 0.1 * noise, RATE) == pytest.approx(20, abs=0.1)
    assert si_snr(x, 3 * (x + 0.1 * noise) + 1, RATE) == pytest.approx(20, abs=0.1)
    assert si_snr(x, noise, RATE) < -30


def plain_magnitudes(signal: np.ndarray, size: int) -> np.ndarray:
    """Frame by frame, each a sum over its samples."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    hop = size // 4
    padded = np.concatenate([np.zeros(size // 2), signal, np.zeros(2 * size)])
    waves = np.exp(-2j * np.pi * np.outer(np.arange(size), np.arange(size // 2 + 1)) / size)
    rows = []
    for start in range(0, hop * -(-len(signal) // hop) + 1, hop):
        rows.append(2 * abs((padded[start : start + size] * window) @ waves) / window.sum())
    return np.array(rows)


def test_stft_distance_against_a_loop(noise: np.ndarray) -> None:
    x = noise[:, :3001]
    y = (x + 0.3 * noise[::-1, :3001]).astype(np.float32)
    convergence, logs = [], []
    for size in metrics.RESOLUTIONS:
        for a, b in zip(x, y, strict=True):
            s, t = plain_magnitudes(a, size), plain_magnitudes(b, size)
            convergence.append(math.sqrt(((s - t) ** 2).sum() / (s**2).sum()))
            logs.append(
                np.mean([abs(math.log(p / q)) for p, q in zip(s.flat, t.flat, strict=True)])
            )
    found = stft_distance(x, y)
    assert found.convergence == pytest.approx(np.mean(convergence), rel=1e-5)
    assert found.log_magnitude == pytest.approx(np.mean(logs), rel=1e-5)


def test_log_mel_distance_against_a_loop(noise: np.ndarray) -> None:
    x, y = noise[:1, :2500], noise[1:, :2500]
    size, top = 1024, 2595 * math.log10(1 + 12000 / 700)
    edges = [700 * (10 ** (top * i / 81 / 2595) - 1) for i in range(82)]
    levels = []
    for signal in (x[0], y[0]):
        power = plain_magnitudes(signal, size) ** 2
        bands = []
        for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
            weights = []
            for k in range(size // 2 + 1):
                f = k * RATE / size
                rising, falling = (f - low) / (middle - low), (high - f) / (high - middle)
                weights.append(max(0.0, min(rising, falling)))
            bands.append(power @ weights / max(sum(weights), 1e-30))
        levels.append(10 * np.log10(np.maximum(bands, 1e-8)))
    expected = abs(levels[0] - levels[1]).mean()
    assert log_mel_distance(x, y) == pytest.approx(expected, rel=1e-4)


def test_levels_are_those_of_a_full_scale_sine() -> None:
    sine = np.sin(2 * np.pi * 1500 * np.arange(RATE) / RATE).astype(np.float32)
    assert metrics.magnitudes(sine, 1024)[10].max() == pytest.approx(1, abs=1e-3)


def test_what_lies_below_the_floor_does_not_count() -> None:
    x = synthetic_clip(0, RATE, 1)
    faint = 1e-5 * np.sin(2 * np.pi * 11000 * np.arange(x.shape[1]) / RATE)
    silence = np.zeros_like(x)
    assert log_mel_distance(silence, silence + faint.astype(np.float32)) == 0
    assert log_mel_distance(silence, silence + (100 * faint).astype(np.float32)) > 0


@pytest.mark.parametrize("length", [1, 100, 511, 513])
def test_recordings_shorter_than_the_windows(noise: np.ndarray, length: int) -> None:
    x = noise[:, :length]
    assert log_mel_distance(x, x) == 0
    assert stft_distance(x, x) == (0, 0)
    assert 0 < stft_distance(x, 0.5 * x).convergence < 1
    assert math.isfinite(si_snr(x, -x, RATE))
