"""Reconstruction losses: signal-to-noise ratio, time-domain L1 and multi-scale mel spectra."""

from __future__ import annotations

import math

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
    """Mean over window lengths of L1 on power mel spectra plus MSE on their log10 (paper eq. 1).

    Windows are 2^low .. 2^high samples with hops of a quarter, 64 filters from 64 Hz, the spectra
    normalised by the window's energy, the logarithm floored at `floor`.
    """

    def __init__(
        self,
        sample_rate: int,
        low: int = 6,
        high: int = 10,
        n_mels: int = 64,
        floor: float = 1e-5,
    ) -> None:
        super().__init__()
        self.floor = floor
        self.sizes = [2**i for i in range(low, high + 1)]
        for size in self.sizes:
            window = torch.hann_window(size)
            self.register_buffer(f"window{size}", window / window.pow(2).sum().sqrt())
            self.register_buffer(f"filters{size}", mel_filters(sample_rate, size, n_mels))

    def _mel(self, x: Tensor, size: int) -> Tensor:
        hop = size // 4
        side = (size - hop) // 2
        tail = -x.shape[-1] % hop
        padded = F.pad(F.pad(x, (side, side), mode="reflect"), (0, tail))
        spectrum = torch.stft(
            padded.flatten(0, 1),
            size,
            hop,
            window=self.get_buffer(f"window{size}"),
            center=False,
            return_complex=True,
        )
        power = spectrum.real.pow(2) + spectrum.imag.pow(2)
        return power.transpose(1, 2) @ self.get_buffer(f"filters{size}")

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Distance of y from x, both float32 [B, C, T] with T above the longest window."""
        total = torch.zeros((), device=x.device)
        for size in self.sizes:
            a, b = self._mel(x, size), self._mel(y, size)
            total = total + F.l1_loss(b, a)
            total = total + F.mse_loss(torch.log10(self.floor + b), torch.log10(self.floor + a))
        return total / (2 * len(self.sizes))
