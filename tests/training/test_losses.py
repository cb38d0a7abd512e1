"""Losses and the balancer against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from encodec_fast.training.balancer import Balancer
from encodec_fast.training.losses import MelLoss, mel_filters, noise_ratio


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(2)


def test_noise_ratio() -> None:
    x = torch.randn(3, 1, 1000)
    assert noise_ratio(x, torch.zeros_like(x)).item() == pytest.approx(0, abs=1e-4)
    assert noise_ratio(x, 0.9 * x).item() == pytest.approx(-20, abs=1e-4)
    silence = torch.zeros(1, 1, 10)
    assert noise_ratio(silence, silence).item() == pytest.approx(0)


@pytest.mark.parametrize(("n_fft", "empty"), [(32, 35), (64, 21), (128, 9), (256, 1), (512, 0)])
def test_filters_too_narrow_for_a_short_window_are_empty(n_fft: int, empty: int) -> None:
    filters = mel_filters(24000, n_fft, 64)
    assert filters.shape == (n_fft // 2 + 1, 64)
    assert int((filters.sum(0) == 0).sum()) == empty
    assert filters.min() >= 0 and filters.max() <= 1


def test_mel_loss_is_zero_for_equal_and_falls_with_the_error() -> None:
    mel = MelLoss(24000)
    x = torch.randn(2, 1, 4001)
    noise = torch.randn_like(x)
    losses = [mel(x, x + gain * noise).item() for gain in (0, 0.1, 1.0)]
    assert losses[0] == 0 and losses[0] < losses[1] < losses[2]


def test_mel_loss_of_a_level_change() -> None:
    """Where the floor does not matter a gain g moves every log10 power by 2 log10 g."""
    mel = MelLoss(24000, windows=[1024])
    x = 30 * torch.randn(1, 1, 24000)
    power = mel.spectrum(x, 1024)
    expected = (3 * power.mean() + math.log10(4) ** 2) / 2
    assert mel(x, 2 * x).item() == pytest.approx(expected.item(), rel=1e-3)


def test_balancer_shares_do_not_depend_on_the_losses_units() -> None:
    y = torch.randn(4, 1, 50, requires_grad=True)
    a, b = torch.randn(4, 1, 50), torch.randn(4, 1, 50)
    a, b = (v / v.flatten(1).norm(dim=1)[:, None, None] for v in (a, b))
    balancer = Balancer({"a": 3.0, "b": 1.0})
    for scale in (1.0, 1.0, 1.0):
        gradient = balancer.gradient(
            {"a": 1000 * scale * (y * a).sum(), "b": 1e-3 * (y * b).sum()}, y
        )
        torch.testing.assert_close(gradient, 0.75 * a + 0.25 * b)
