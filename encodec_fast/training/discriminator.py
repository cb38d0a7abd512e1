"""The multi-scale STFT discriminator (paper 3.4, spec 6.9)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm


@dataclass(frozen=True)
class DiscriminatorSettings:
    """Its shape: channels of the hidden layers, the window in samples of each sub-discriminator
    (the hop is a quarter of it), the slope of the leaky ReLU below 0, the kernel (time, frequency)
    of the layers that stride, and whether audio channels are judged apart or together."""

    filters: int = 32
    n_ffts: tuple[int, ...] = (1024, 2048, 512, 256, 128)
    slope: float = 0.2
    kernel: tuple[int, ...] = (3, 9)
    separate_channels: bool = True

    def __post_init__(self) -> None:
        if self.filters < 1:
            raise ValueError(f"filters: expected at least 1, found {self.filters!r}")
        if not self.n_ffts or any(size < 16 or size % 4 for size in self.n_ffts):
            raise ValueError(f"n_ffts: expected multiples of 4, at least 16, found {self.n_ffts!r}")
        if not 0 <= self.slope < 1:
            raise ValueError(f"slope: expected from 0 to below 1, found {self.slope!r}")
        if len(self.kernel) != 2 or any(size < 1 or size % 2 == 0 for size in self.kernel):
            raise ValueError(f"kernel: expected two odd sizes, found {self.kernel!r}")


def _same_duration(sizes: tuple[int, ...], sample_rate: int) -> tuple[int, ...]:
    """The windows given for 24 kHz, doubled at 48 kHz (44.1 kHz, too), as in the paper."""
    factor = max(1, round(sample_rate / 24000))
    return tuple(factor * size for size in sizes)


def _paper(sample_rate: int) -> DiscriminatorSettings:
    return DiscriminatorSettings(n_ffts=_same_duration((1024, 2048, 512, 256, 128), sample_rate))


def _audiocraft(sample_rate: int) -> DiscriminatorSettings:
    """The same windows at every rate."""
    return DiscriminatorSettings(slope=0.3, separate_channels=False)


def _small(sample_rate: int) -> DiscriminatorSettings:
    """For training on a CPU: about a tenth of the paper's time there, the range of windows kept."""
    return DiscriminatorSettings(filters=8, n_ffts=_same_duration((2048, 512, 128), sample_rate))


DISCRIMINATOR_PRESETS: dict[str, Callable[[int], DiscriminatorSettings]] = {
    "paper": _paper,
    "audiocraft": _audiocraft,
    "small": _small,
}
"""Settings by name, each a function of the sample rate in Hz."""


class STFTDiscriminator(nn.Module):
    """Convolutions over the complex spectrum with one window; the first has no weight norm."""

    window: Tensor

    def __init__(self, settings: DiscriminatorSettings, n_fft: int, channels: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.slope = settings.slope
        window = torch.hann_window(n_fft)
        self.register_buffer("window", window / window.norm(), persistent=False)
        filters, (time, frequency) = settings.filters, settings.kernel
        middle = (time // 2, frequency // 2)
        layers = [nn.Conv2d(2 * channels, filters, (time, frequency), padding=middle)]
        for dilation in (1, 2, 4):
            layers.append(
                nn.Conv2d(
                    filters,
                    filters,
                    (time, frequency),
                    stride=(1, 2),
                    dilation=(dilation, 1),
                    padding=(dilation * middle[0], middle[1]),
                )
            )
        square, around = (time, time), (middle[0], middle[0])
        layers.append(nn.Conv2d(filters, filters, square, padding=around))
        self.layers = nn.ModuleList([layers[0], *(weight_norm(each) for each in layers[1:])])
        self.post = weight_norm(nn.Conv2d(filters, 1, square, padding=around))

    def spectrum(self, x: Tensor) -> Tensor:
        """Real and imaginary parts float32 [B, 2 C, frames, n_fft / 2 + 1] of x [B, C, T]."""
        with torch.autocast(x.device.type, enabled=False):
            found = torch.stft(
                x.float().flatten(0, 1),
                self.n_fft,
                self.n_fft // 4,
                window=self.window,
                center=False,
                return_complex=True,
            )
        parts = torch.view_as_real(found).reshape(*x.shape[:2], *found.shape[1:], 2)
        # For separate channels that is how the parts lie in memory already. The convolutions keep
        # the layout; with few filters they are several times faster in it on a CPU.
        parts = parts.permute(0, 4, 1, 3, 2).flatten(1, 2)
        return parts.contiguous(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits [B, 1, frames, bins] and the activations of all other layers, of x [B, C, T]."""
        found = self.spectrum(x)
        features = []
        for layer in self.layers:
            # In place: the backward pass then keeps one tensor a layer, not two.
            found = F.leaky_relu(layer(found), self.slope, inplace=True)
            features.append(found)
        return self.post(found), features


class MultiScaleSTFTDiscriminator(nn.Module):
    """One STFTDiscriminator for each window of `settings`, for audio of `channels` channels."""

    def __init__(self, settings: DiscriminatorSettings, channels: int = 1) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels: expected at least 1, found {channels!r}")
        self.settings = settings
        self.channels = channels
        judged = 1 if settings.separate_channels else channels
        self.scales = nn.ModuleList(
            STFTDiscriminator(settings, n_fft, judged) for n_fft in settings.n_ffts
        )

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
        """Logits, and features of the five hidden layers, by window, of waveforms x [B, C, T].

        Logits are [B, 1, frames, bins], features [B, filters, frames, bins of the layer]; where
        channels are separate, item b's channel c is row b * C + c. Under autocast they have its
        type. Raises ValueError for another shape than [B, channels, T >= the longest window].
        """
        longest = max(self.settings.n_ffts)
        if x.dim() != 3 or x.shape[1] != self.channels or x.shape[2] < longest:
            raise ValueError(
                f"x: expected [batch, {self.channels}, samples >= {longest}], found {list(x.shape)}"
            )
        if self.settings.separate_channels:
            x = x.reshape(-1, 1, x.shape[2])
        found = [scale(x) for scale in self.scales]
        return [logits for logits, _ in found], [features for _, features in found]
