"""Losses against closed forms, plain loops and librosa."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import pytest
import torch

from encodec_fast.training.losses import (
    MEL_PRESETS,
    MelLoss,
    feature_matching,
    hinge_discriminator,
    hinge_generator,
    mel_filters,
    mel_loss,
    noise_ratio,
)


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


def librosa_mel(wave: Any, rate: int, n_fft: int, power: int) -> Any:
    """Mel spectrum float64 [64, frames] of a wave [T] by librosa, audiocraft's framing."""
    librosa = pytest.importorskip("librosa", reason="the mel oracle needs the test extra")
    hop = n_fft // 4
    side = (n_fft - hop) // 2
    padded = np.pad(np.pad(wave.astype(np.float64), side, mode="reflect"), (0, -len(wave) % hop))
    spectrum = librosa.stft(padded, n_fft=n_fft, hop_length=hop, window="hann", center=False)
    spectrum /= np.sqrt((librosa.filters.get_window("hann", n_fft) ** 2).sum())
    with pytest.warns() if n_fft <= 256 else contextlib.nullcontext():  # of empty filters
        filters = librosa.filters.mel(
            sr=rate, n_fft=n_fft, n_mels=64, fmin=64, htk=True, norm=None, dtype=np.float64
        )
    return filters @ np.abs(spectrum) ** power


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("n_fft", [64, 1024])
def test_mel_spectrum_equals_librosas(n_fft: int, power: int) -> None:
    wave = torch.randn(4999)
    expected = librosa_mel(wave.numpy(), 24000, n_fft, power)
    found = MelLoss(24000, windows=[n_fft], power=power).spectrum(wave[None, None], n_fft)[0]
    assert found.shape[0] == math.ceil(4999 / (n_fft // 4)) == expected.shape[1]
    expected = expected[mel_filters(24000, n_fft, 64).sum(0).numpy() > 0]
    np.testing.assert_allclose(found.T.numpy(), expected, rtol=1e-3, atol=1e-5)


def test_presets_equal_plain_loops_over_librosas_spectra() -> None:
    x = torch.randn(2, 2, 5001) * torch.tensor([1.0, 0.01])[:, None, None]
    y = 0.9 * x + 0.01 * torch.randn_like(x)
    paper, audiocraft = 0.0, 0.0
    for n_fft in (32, 64, 128, 256, 512, 1024, 2048):
        pairs = [
            [
                np.stack([librosa_mel(channel, 24000, n_fft, 2) for channel in item])
                for item in wave.numpy()
            ]
            for wave in (x, y)
        ]
        differences = [b - a for a, b in zip(*pairs, strict=True)]
        first = np.mean(np.abs(differences))
        paper += first + np.mean([np.sqrt(np.mean(each**2)) for each in differences])
        if 64 <= n_fft <= 1024:
            logs = [np.log10(1e-5 + np.array(wave)) for wave in pairs]
            audiocraft += first + np.mean((logs[1] - logs[0]) ** 2)
    assert mel_loss("paper", 24000)(x, y).item() == pytest.approx(paper / 7, rel=1e-3)
    assert mel_loss("audiocraft", 24000)(x, y).item() == pytest.approx(audiocraft / 10, rel=1e-3)


def test_alphas_weigh_the_second_term() -> None:
    x, y = torch.randn(2, 1, 1, 2000)
    for log in (False, True):
        plain, alone, double = (
            MelLoss(24000, windows=[256], alphas=[alpha], log=log)(x, y).item()
            for alpha in (1.0, 0.0, 2.0)
        )
        second = (2 if log else 1) * plain - alone
        assert double * (3 if log else 1) == pytest.approx(alone + 2 * second, rel=1e-5)


@pytest.mark.parametrize("preset", list(MEL_PRESETS))
def test_mel_gradients_are_finite_without_any_difference(preset: str) -> None:
    for x in (torch.zeros(1, 1, 9600), torch.randn(1, 1, 9600)):
        y = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(mel_loss(preset, 24000)(x, y), y)
        assert torch.equal(gradient, torch.zeros_like(y))


def test_mel_loss_under_autocast_is_that_without() -> None:
    x, y = torch.randn(2, 2, 1, 3000)
    mel = mel_loss("paper", 24000)
    expected = mel(x, y)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mel(x, y), expected)


def test_mel_loss_refuses() -> None:
    mel = MelLoss(24000)
    with pytest.raises(ValueError, match=r"samples >= 385.*found \[1, 1, 384\]"):
        mel(torch.zeros(1, 1, 384), torch.zeros(1, 1, 384))
    with pytest.raises(ValueError, match="alike"):
        mel(torch.zeros(1, 1, 500), torch.zeros(1, 1, 501))
    assert mel(torch.zeros(1, 1, 385), torch.zeros(1, 1, 385)).item() == 0
    with pytest.raises(ValueError, match="preset: expected one of paper, audiocraft"):
        mel_loss("other", 24000)
    wrong: dict[str, Any]
    for wrong in (
        {"windows": ()},
        {"windows": (30,)},
        {"windows": (64, 64)},
        {"alphas": (1.0,)},
        {"power": 3},
        {"floor": 0.0},
        {"n_mels": 0},
        {"low_hz": 12000.0},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            MelLoss(24000, **wrong)


def test_hinge_losses_equal_plain_loops() -> None:
    real, fake = ([3 * torch.randn(2, 1, 5, size) for size in (4, 9)] for _ in range(2))
    judged, hinge, mean = 0.0, 0.0, 0.0
    for r, f in zip(real, fake, strict=True):
        judged += np.mean([max(0, 1 - v) for v in r.flatten().tolist()]) / 2
        judged += np.mean([max(0, 1 + v) for v in f.flatten().tolist()]) / 2
        hinge += np.mean([max(0, 1 - v) for v in f.flatten().tolist()]) / 2
        mean -= np.mean(f.flatten().tolist()) / 2
    assert hinge_discriminator(real, fake).item() == pytest.approx(judged, rel=1e-5)
    assert hinge_generator(fake).item() == pytest.approx(hinge, rel=1e-5)
    assert hinge_generator(fake, "mean").item() == pytest.approx(mean, rel=1e-5)
    with pytest.raises(ValueError, match="form: expected hinge or mean, found 'other'"):
        hinge_generator(fake, "other")
    with pytest.raises(ValueError, match="found 2 and 1"):
        hinge_discriminator(real, fake[:1])


def test_feature_matching_equals_a_plain_loop() -> None:
    shapes = [[(2, 3, 4), (2, 5)], [(2, 1, 7), (2, 2)]]
    real, fake = ([[torch.randn(shape) for shape in scale] for scale in shapes] for _ in range(2))
    relative, plain = 0.0, 0.0
    for r, f in zip([*real[0], *real[1]], [*fake[0], *fake[1]], strict=True):
        distance = np.abs(f.numpy() - r.numpy()).mean()
        plain += distance / 4
        relative += distance / np.abs(r.numpy()).mean() / 4
    assert feature_matching(real, fake).item() == pytest.approx(relative, rel=1e-5)
    assert feature_matching(real, fake, relative=False).item() == pytest.approx(plain, rel=1e-5)


def test_features_of_recordings_are_constants() -> None:
    real = torch.randn(5, requires_grad=True)
    fake = torch.randn(5, requires_grad=True)
    feature_matching([[real]], [[fake]]).backward()
    assert real.grad is None and fake.grad is not None
    cast = feature_matching([[real.bfloat16()]], [[fake.bfloat16()]])
    assert cast.dtype == torch.float32


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
