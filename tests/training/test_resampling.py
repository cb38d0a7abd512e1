"""Resampling on the device against sines sampled at the new times."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from encodec_fast.training.resampling import resample

EDGE = 200  # samples at 16 kHz: there the recording is taken for silence


def sines(hertz: list[float], rate: int, length: int) -> NDArray[np.float64]:
    times = np.arange(length) / rate
    return np.mean([np.sin(2 * np.pi * f * times + f) for f in hertz], axis=0)


@pytest.mark.parametrize("rate", [8000, 22050, 24000, 44100, 48000])
def test_what_both_rates_hold_is_kept(rate: int) -> None:
    hertz = [60.0, 440.0, 1000.0, 3100.0] + [6900.0] * (rate > 16000)
    length = rate // 2 + 7
    found = resample(torch.from_numpy(sines(hertz, rate, length)).float()[None], rate, 16000)
    expected = sines(hertz, 16000, -(-length * 16000 // rate))
    assert found.shape == (1, len(expected))
    error = found[0].numpy()[EDGE:-EDGE] - expected[EDGE:-EDGE]
    assert 10 * np.log10(np.mean(expected**2) / np.mean(error**2)) > 85


@pytest.mark.parametrize("rate", [22050, 24000, 48000])
def test_what_the_new_rate_cannot_hold_is_gone(rate: int) -> None:
    """Without a filter these would come back as 7.9 and 5 kHz."""
    for hertz in (8100.0, 11000.0):
        wave = torch.from_numpy(sines([hertz], rate, rate // 2)).float()[None]
        left = resample(wave, rate, 16000)[0, EDGE:-EDGE].abs().max().item()
        assert 20 * np.log10(left) < -75


def test_recordings_of_a_batch_do_not_meet() -> None:
    torch.manual_seed(1)
    waves = torch.randn(3, 5000)
    together = resample(waves, 24000, 16000)
    alone = torch.cat([resample(wave[None], 24000, 16000) for wave in waves])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 3, 100])
def test_short_recordings(length: int) -> None:
    assert resample(torch.ones(1, length), 48000, 16000).shape == (1, -(-length // 3))
    assert resample(torch.ones(1, length), 16000, 16000).shape == (1, length)
