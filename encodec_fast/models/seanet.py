"""SEANet encoder and decoder (EnCodec paper 3.1).

The module tree carries the key names of transformers' EncodecModel, so that a state dict of that
model loads without renaming. Tensors are float32 [batch, channels, time].
"""

from __future__ import annotations

import math
from typing import TypeVar

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from encodec_fast.models.config import ModelConfig

Conv = TypeVar("Conv", nn.Conv1d, nn.ConvTranspose1d)


def _pad(x: Tensor, left: int, right: int, mode: str) -> Tensor:
    """Pad time; `reflect` mirrors without the edge, after zeros where the input is too short."""
    if mode == "constant":
        return F.pad(x, (left, right))
    missing = max(left, right) - x.shape[-1] + 1
    if missing <= 0:
        return F.pad(x, (left, right), mode="reflect")
    padded = F.pad(F.pad(x, (0, missing)), (left, right), mode="reflect")
    return padded[..., : padded.shape[-1] - missing]


def _normed(conv: Conv, norm: str, fan_in: int) -> tuple[Conv, nn.GroupNorm | None]:
    """The convolution with its weight norm, and the group norm that follows it (or None).

    It starts with zero biases and weights that keep the signal's power (`fan_in` products make one
    output). PyTorch's default lets a signal fade to a tenth within a few layers: the decoder's
    output then depends on its biases alone and training spends its first hundreds of steps on that.
    """
    nn.init.normal_(conv.weight, std=fan_in**-0.5)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    if norm == "weight_norm":
        weight_norm(conv)
    return conv, nn.GroupNorm(1, conv.out_channels) if norm == "time_group_norm" else None


class Conv1d(nn.Module):
    """A convolution that turns T samples into ceil(T / stride) frames.

    Input [B, in_channels, T], output [B, out_channels, ceil(T / stride)]. Causal: all padding but
    the completion of the last frame goes left. Otherwise the odd sample goes left.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        config: ModelConfig,
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        conv = nn.Conv1d(in_channels, out_channels, kernel_size, stride, dilation=dilation)
        self.conv, self.norm = _normed(conv, config.norm, in_channels * kernel_size)
        self.causal = config.causal
        self.pad_mode = config.pad_mode
        self.kernel_size = kernel_size
        self.stride = stride
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, T] to [B, out_channels, ceil(T / stride)]."""
        padding = (self.kernel_size - 1) * self.dilation + 1 - self.stride
        right = 0 if self.causal else padding // 2
        extra = math.ceil(x.shape[-1] / self.stride) * self.stride - x.shape[-1]
        y: Tensor = self.conv(_pad(x, padding - right, right + extra, self.pad_mode))
        return y if self.norm is None else self.norm(y)


class ConvTranspose1d(nn.Module):
    """A transposed convolution of kernel 2 * stride: F frames become exactly F * stride samples.

    The group norm, where there is one, sees the samples that are trimmed afterwards.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, config: ModelConfig
    ) -> None:
        super().__init__()
        conv = nn.ConvTranspose1d(in_channels, out_channels, 2 * stride, stride)
        self.conv, self.norm = _normed(conv, config.norm, 2 * in_channels)
        self.causal = config.causal
        self.kernel_size = 2 * stride
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, F] to [B, out_channels, F * stride]."""
        y: Tensor = self.conv(x)
        if self.norm is not None:
            y = self.norm(y)
        left = 0 if self.causal else self.stride - self.stride // 2
        return y[..., left : left + x.shape[-1] * self.stride]


class ResidualUnit(nn.Module):
    """shortcut(x) + conv1(ELU(conv3(ELU(x)))), the shortcut a learned 1x1 convolution."""

    def __init__(self, channels: int, dilation: int, config: ModelConfig) -> None:
        super().__init__()
        hidden = channels // config.compress
        self.block = nn.ModuleList(
            [
                nn.ELU(),
                Conv1d(channels, hidden, config.residual_kernel_size, config, dilation=dilation),
                nn.ELU(),
                Conv1d(hidden, channels, 1, config),
            ]
        )
        self.shortcut = nn.Identity() if config.true_skip else Conv1d(channels, channels, 1, config)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, T] to the same shape."""
        y = x
        for layer in self.block:
            y = layer(y)
        out: Tensor = self.shortcut(x) + y
        return out


class LSTM(nn.Module):
    """Stacked unidirectional LSTM with one residual connection around the stack."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, layers)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, F] to the same shape; the state starts at zero."""
        steps = x.permute(2, 0, 1)
        y: Tensor = self.lstm(steps)[0] + steps
        return y.permute(1, 2, 0)


def _residual_units(channels: int, config: ModelConfig) -> list[nn.Module]:
    return [ResidualUnit(channels, 2**i, config) for i in range(config.n_residual_layers)]


class SEANetEncoder(nn.Module):
    """Waveform [B, channels, T] to latents [B, dimension, ceil(T / hop)]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.n_filters
        layers: list[nn.Module] = [Conv1d(config.channels, width, config.kernel_size, config)]
        for ratio in reversed(config.ratios):
            layers += _residual_units(width, config)
            layers += [nn.ELU(), Conv1d(width, 2 * width, 2 * ratio, config, stride=ratio)]
            width *= 2
        if config.lstm_layers:
            layers.append(LSTM(width, config.lstm_layers))
        layers += [nn.ELU(), Conv1d(width, config.dimension, config.last_kernel_size, config)]
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, T] to [B, dimension, ceil(T / hop)]."""
        for layer in self.layers:
            x = layer(x)
        return x


class SEANetDecoder(nn.Module):
    """Latents [B, dimension, F] to a waveform [B, channels, F * hop]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.n_filters * 2 ** len(config.ratios)
        layers: list[nn.Module] = [Conv1d(config.dimension, width, config.kernel_size, config)]
        if config.lstm_layers:
            layers.append(LSTM(width, config.lstm_layers))
        for ratio in config.ratios:
            layers += [nn.ELU(), ConvTranspose1d(width, width // 2, ratio, config)]
            width //= 2
            layers += _residual_units(width, config)
        layers += [nn.ELU(), Conv1d(width, config.channels, config.last_kernel_size, config)]
        self.layers = nn.ModuleList(layers)

    def forward(self, z: Tensor) -> Tensor:
        """[B, dimension, F] to [B, channels, F * hop]."""
        for layer in self.layers:
            z = layer(z)
        return z
