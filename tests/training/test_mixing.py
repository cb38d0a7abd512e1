"""Rooms, directions and levels against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from encodec_fast.training.data_settings import ReverbSettings
from encodec_fast.training.mixing import make_impulse_response, mix, pan, reverberate


def random_wave(seed: int, channels: int, samples: int, peak: float = 0.5) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-peak, peak, (channels, samples)).astype(np.float32)


@pytest.mark.parametrize("rt60", [0.3, 1.3])
def test_made_impulse_responses_decay_by_60_db_in_their_time(rt60: float) -> None:
    settings = ReverbSettings(rt60=(rt60, rt60))
    response = make_impulse_response(settings, 16000, 2, np.random.default_rng(1))
    assert response.shape == (2, round(rt60 * 16000)) and response.dtype == np.float32
    assert (response[:, 0] == 1).all()
    tail = np.square(response[:, 1:].astype(np.float64))
    # The level in dB over time is a line whose slope the noise around it hardly changes.
    parts = tail[:, : tail.shape[1] // 20 * 20].reshape(2, 20, -1).mean(axis=2)
    slope = np.polyfit((np.arange(20) + 0.5) / 20, 10 * np.log10(parts.mean(axis=0)), 1)[0]
    assert slope == pytest.approx(-60, abs=2)
    direct = -10 * np.log10(tail.sum(axis=1))
    assert (direct >= -1e-3).all() and (direct <= 12.001).all()
    assert not np.array_equal(response[0], response[1])  # a room is wide


def test_reverberation_is_a_convolution_at_the_same_level() -> None:
    x, h = random_wave(1, 2, 300), random_wave(2, 2, 200)
    h[:, 30] = 1.0  # the direct sound, late
    expected = np.zeros((2, 300))
    for t in range(300):
        for k in range(200):
            if 0 <= t + 30 - k < 300:
                expected[:, t] += h[:, k].astype(np.float64) * x[:, t + 30 - k]
    expected *= np.sqrt(np.square(x).mean() / np.square(expected).mean())
    wet = reverberate(x, h)
    assert wet.dtype == np.float32
    assert np.allclose(wet, expected, atol=1e-5)


def test_panning_keeps_the_power_of_the_middle() -> None:
    x = np.repeat(random_wave(1, 1, 500), 2, axis=0)
    sides = []
    for seed in range(50):
        moved = pan(x, np.random.default_rng(seed))
        assert np.square(moved).mean() == pytest.approx(np.square(x).mean(), rel=1e-4)
        sides.append(float(moved[0, 0] / x[0, 0]))
    assert min(sides) < 0.2 and max(sides) > 1.3


def test_gains_are_in_their_range_and_what_clips_is_rejected() -> None:
    x, y = random_wave(1, 1, 400, 0.9), random_wave(2, 1, 400, 0.9)
    ratios = []
    for seed in range(300):
        total = mix([x], (-10.0, 6.0), 32, np.random.default_rng(seed))
        assert total is not None and np.abs(total).max() <= 1
        ratios.append(20 * np.log10(float(total[0, 0] / x[0, 0])))
    limit = -20 * np.log10(np.abs(x).max())
    assert min(ratios) == pytest.approx(-10, abs=0.3)
    assert max(ratios) <= limit + 1e-6 and max(ratios) == pytest.approx(limit, abs=0.3)
    # Uniform in dB as far as nothing clips, as rejection leaves it.
    assert np.mean(ratios) == pytest.approx((limit - 10) / 2, abs=0.6)
    total = mix([x, y], (-10.0, -10.0), 1, np.random.default_rng(0))
    assert total is not None and np.allclose(total, (x + y) * 10**-0.5, atol=1e-6)
    assert mix([x, y], (6.0, 6.0), 5, np.random.default_rng(0)) is None
