"""Training losses: noise ratio, multi-scale mel spectra, adversarial hinge, feature matching.

The time-domain L1 loss of the paper is torch.nn.functional.l1_loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def noise_ratio(x: Tensor, y: Tensor, floor: float = 1e-8) -> Tensor:
    """Noise-to-signal ratio of y [B, C, T] against x in dB, the mean over the batch (a scalar).

    Lower is better; 0 dB is what silence scores. `floor` is the mean-square level (amplitude 1e-4)
    below which neither counts, so that silent crops stay finite.
    """
    noise = (x - y).pow(2).mean(dim=(1, 2)) + floor
    signal = x.pow(2).mean(dim=(1, 2)) + floor
    return 10 * torch.log10(noise / signal).mean()


def mel_filters(sample_rate: int, n_fft: int, n_mels: int, low: float = 64.0) -> Tensor:
    """Triangular filters float32 [n_fft // 2 + 1, n_mels], HTK scale, peak 1, `low` to Nyquist."""
    top = sample_rate / 2

    def mel(hertz: float) -> float:
        return 2595 * math.log10(1 + hertz / 700)

    points = torch.linspace(mel(low), mel(top), n_mels + 2, dtype=torch.float64)
    centres = 700 * (10 ** (points / 2595) - 1)
    bins = torch.linspace(0, top, n_fft // 2 + 1, dtype=torch.float64)
    rising = (bins[:, None] - centres[:-2]) / (centres[1:-1] - centres[:-2])
    falling = (centres[2:] - bins[:, None]) / (centres[2:] - centres[1:-1])
    return torch.minimum(rising, falling).clamp(min=0).float()


class MelLoss(nn.Module):
    """L1 plus alpha times L2 distance of mel spectra, over several window lengths (spec 6.2).

    windows: lengths in samples, multiples of 4; the hop is a quarter. n_mels filters from low_hz to
    half the sample rate. alphas: one for each window, None for 1. power: of the spectrum's
    magnitudes, 1 or 2. normalized: the spectrum is divided by the root of the window's energy.

    With `log` as in audiocraft: L2 is the mean squared error of log10(floor + mel), and the sum is
    divided by the sum of 1 + alpha. Without, as in the paper (eq. 1): L2 is the root mean square
    error of the mel spectra of an item themselves, and the sum is divided by the number of windows
    times that of different alphas.
    """

    def __init__(
        self,
        sample_rate: int,
        windows: Sequence[int] = (64, 128, 256, 512, 1024),
        n_mels: int = 64,
        low_hz: float = 64.0,
        alphas: Sequence[float] | None = None,
        power: int = 2,
        normalized: bool = True,
        log: bool = True,
        floor: float = 1e-5,
    ) -> None:
        super().__init__()
        if not windows or any(size < 16 or size % 4 for size in windows):
            raise ValueError(f"windows: expected multiples of 4, at least 16, found {windows!r}")
        if len(set(windows)) != len(windows):
            raise ValueError(f"windows: expected different lengths, found {windows!r}")
        if alphas is not None and len(alphas) != len(windows):
            raise ValueError(f"alphas: expected {len(windows)}, one a window, found {alphas!r}")
        if power not in (1, 2):
            raise ValueError(f"power: expected 1 or 2, found {power!r}")
        if not floor > 0:
            raise ValueError(f"floor: expected above 0, found {floor!r}")
        if n_mels < 1 or not 0 <= low_hz < sample_rate / 2:
            raise ValueError(
                f"n_mels, low_hz: expected at least 1 filter below {sample_rate / 2:g} Hz,"
                f" found {n_mels!r}, {low_hz!r}"
            )
        self.windows = tuple(windows)
        self.alphas = (1.0,) * len(windows) if alphas is None else tuple(alphas)
        self.n_mels = n_mels
        self.power = power
        self.log = log
        self.floor = floor
        self._divisor = float(len(windows) * len(set(self.alphas)))
        if log:
            self._divisor = sum(1 + alpha for alpha in self.alphas)
        for size in windows:
            window = torch.hann_window(size)
            scale = window.norm() if normalized else 1.0
            self.register_buffer(f"window{size}", window / scale, persistent=False)
            filters = mel_filters(sample_rate, size, n_mels, low_hz)
            # Narrow filters between the bins of a short window are empty: no use computing them.
            filters = filters[:, filters.amax(dim=0) > 0]
            self.register_buffer(f"filters{size}", filters, persistent=False)

    def spectrum(self, x: Tensor, size: int) -> Tensor:
        """Mel spectrum float32 [B * C, frames, filters that are not empty] with one window, of x
        [B, C, T]: ceil(T / hop) frames, reflected at both ends."""
        hop = size // 4
        side = (size - hop) // 2
        tail = -x.shape[-1] % hop
        padded = F.pad(F.pad(x.flatten(0, 1), (side, side), mode="reflect"), (0, tail))
        window = self.get_buffer(f"window{size}")
        found = torch.stft(padded, size, hop, window=window, center=False, return_complex=True)
        magnitude = found.abs() if self.power == 1 else found.real.pow(2) + found.imag.pow(2)
        return magnitude.transpose(1, 2) @ self.get_buffer(f"filters{size}")

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Distance of y from x, both [B, C, T], computed in float32, a scalar.

        Raises ValueError unless T is above 3/8 of the longest window, which reflection needs.
        """
        shortest = max(self.windows) * 3 // 8 + 1
        if x.dim() != 3 or x.shape != y.shape or x.shape[2] < shortest:
            raise ValueError(
                f"x, y: expected [batch, channels, samples >= {shortest}] alike,"
                f" found {list(x.shape)}, {list(y.shape)}"
            )
        with torch.autocast(x.device.type, enabled=False):
            x, y = x.float(), y.float()
            total = torch.zeros((), device=x.device)
            for size, alpha in zip(self.windows, self.alphas, strict=True):
                a, b = self.spectrum(x, size), self.spectrum(y, size)
                total = total + self._distance(a, b, x.shape[0], alpha)
            return total / self._divisor

    def _distance(self, a: Tensor, b: Tensor, items: int, alpha: float) -> Tensor:
        """One window's term. Empty filters count in the means, as what they add: nothing."""
        share = a.shape[-1] / self.n_mels
        difference = b - a
        first = share * difference.abs().mean()
        if self.log:
            second = share * F.mse_loss((self.floor + b).log10(), (self.floor + a).log10())
        else:
            rows = difference.reshape(items, -1)
            # The norm's derivative at 0 is 0, that of a root of the mean would be infinite.
            norms = torch.linalg.vector_norm(rows, dim=1)
            second = norms.mean() * math.sqrt(share / rows.shape[1])
        return first + alpha * second


MEL_PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"windows": (32, 64, 128, 256, 512, 1024, 2048), "log": False},
    "audiocraft": {},
}


def mel_loss(preset: str, sample_rate: int, floor: float | None = None) -> MelLoss:
    """The MelLoss of one of MEL_PRESETS; `floor` replaces its own. Raises ValueError for another
    name."""
    if preset not in MEL_PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(MEL_PRESETS)}, found {preset!r}")
    own = MEL_PRESETS[preset] if floor is None else {**MEL_PRESETS[preset], "floor": floor}
    return MelLoss(sample_rate, **own)


def hinge_discriminator(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """What a discriminator minimises, a float32 scalar (paper 3.4, spec 6.3).

    real, fake: its logits for recordings and for decoded audio, of any shape, one a scale. They are
    pushed above 1 and below -1; each scale counts alike.
    """
    _check_scales(real, fake)
    terms = [
        F.relu(1 - r.float()).mean() + F.relu(1 + f.float()).mean()
        for r, f in zip(real, fake, strict=True)
    ]
    return torch.stack(terms).mean()


def hinge_generator(fake: Sequence[Tensor], form: str = "hinge") -> Tensor:
    """What the decoder minimises against a discriminator, a float32 scalar (spec 6.3).

    fake: logits for decoded audio, one a scale. form: "hinge", max(0, 1 - logit) as in the paper,
    or "mean", -logit as audiocraft is configured. Raises ValueError for another form.
    """
    if not fake:
        raise ValueError("fake: expected the logits of at least one scale, found none")
    if form == "hinge":
        terms = [F.relu(1 - f.float()).mean() for f in fake]
    elif form == "mean":
        terms = [-f.float().mean() for f in fake]
    else:
        raise ValueError(f"form: expected hinge or mean, found {form!r}")
    return torch.stack(terms).mean()


def feature_matching(
    real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]], relative: bool = True
) -> Tensor:
    """Mean L1 distance of a discriminator's features, a float32 scalar (paper eq. 2, spec 6.4).

    real, fake: features of recordings (taken as constants) and of decoded audio, by scale and
    layer. relative: each layer's distance is divided by the mean magnitude of the real features;
    audiocraft's is not. Every layer of a scale and every scale counts alike.
    """
    _check_scales(real, fake)
    scales = [
        torch.stack([_feature_distance(r, f, relative) for r, f in zip(a, b, strict=True)]).mean()
        for a, b in zip(real, fake, strict=True)
    ]
    return torch.stack(scales).mean()


def _feature_distance(real: Tensor, fake: Tensor, relative: bool) -> Tensor:
    real = real.detach()
    distance = (fake - real).abs().mean(dtype=torch.float32)
    if not relative:
        return distance
    # Far below any real layer's level: dead features must not divide by 0.
    return distance / real.abs().mean(dtype=torch.float32).clamp(min=1e-8)


def _check_scales(real: Sequence[object], fake: Sequence[object]) -> None:
    if not real or len(real) != len(fake):
        raise ValueError(
            f"real, fake: expected as many scales of both, at least one,"
            f" found {len(real)} and {len(fake)}"
        )
