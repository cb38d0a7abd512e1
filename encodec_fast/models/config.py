"""Model configurations: everything that fixes a model's layers, rates and bandwidths.

This module does not import torch, so that a program's header can be checked without it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

NORMS = ("weight_norm", "time_group_norm", "none")
PAD_MODES = ("reflect", "constant")
_SIZES = (
    "sample_rate",
    "channels",
    "dimension",
    "n_filters",
    "kernel_size",
    "last_kernel_size",
    "residual_kernel_size",
    "compress",
)
_COUNTS = ("n_residual_layers", "lstm_layers")  # of layers that a model need not have


@dataclass(frozen=True)
class ModelConfig:
    """The hyper-parameters of one EnCodec model (paper 3.1 to 3.3).

    `bandwidths` are in kbps, `segment` is in seconds (None: the whole recording is one segment),
    `overlap` is a share of the segment, `ratios` are the decoder's upsampling factors in order
    (the encoder uses them in reverse). Raises ValueError for values that no model can have.
    """

    name: str
    sample_rate: int
    channels: int
    bandwidths: tuple[float, ...]
    causal: bool
    norm: str
    normalize: bool
    segment: float | None = None
    overlap: float = 0.01
    dimension: int = 128
    n_filters: int = 32
    ratios: tuple[int, ...] = (8, 5, 4, 2)
    kernel_size: int = 7
    last_kernel_size: int = 7
    residual_kernel_size: int = 3
    n_residual_layers: int = 1
    compress: int = 2
    lstm_layers: int = 2
    pad_mode: str = "reflect"
    true_skip: bool = False
    codebook_size: int = 1024

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(NORMS)}, not {self.norm!r}")
        if self.pad_mode not in PAD_MODES:
            raise ValueError(
                f"pad_mode must be one of {', '.join(PAD_MODES)}, not {self.pad_mode!r}"
            )
        if self.norm == "time_group_norm" and self.causal:
            raise ValueError("time_group_norm looks at the whole segment: it cannot be causal")
        for name, least in (*((name, 1) for name in _SIZES), *((name, 0) for name in _COUNTS)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if not self.ratios or min(self.ratios) < 1:
            raise ValueError(f"ratios must be one or more of at least 1, not {self.ratios}")
        if self.n_filters < self.compress:
            raise ValueError(
                f"n_filters must be at least compress ({self.compress}), not {self.n_filters}"
            )
        if self.codebook_size & (self.codebook_size - 1) or not 2 <= self.codebook_size <= 65536:
            raise ValueError(
                f"codebook_size must be a power of two from 2 to 65536, not {self.codebook_size}"
            )
        rising = list(self.bandwidths) == sorted(set(self.bandwidths))
        if not self.bandwidths or not rising:
            raise ValueError(f"bandwidths must be given in rising order, not {self.bandwidths}")
        if not all(0 < bandwidth < math.inf for bandwidth in self.bandwidths):
            raise ValueError(f"bandwidths must be above 0 kbps, not {self.bandwidths}")
        if self.segment is not None and not 1 <= self.segment * self.sample_rate < math.inf:
            raise ValueError(f"segment must be at least a sample long, not {self.segment} s")
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap must be a share from 0 to below 1, not {self.overlap}")

    @property
    def hop(self) -> int:
        """Samples per latent frame."""
        return math.prod(self.ratios)

    @property
    def frame_rate(self) -> int:
        """Latent frames per second, rounded up as the released models do."""
        return math.ceil(self.sample_rate / self.hop)

    @property
    def codebook_bits(self) -> int:
        """Bits per code."""
        return self.codebook_size.bit_length() - 1

    @property
    def n_codebooks(self) -> int:
        """Codebooks of the highest bandwidth."""
        return self._codebooks_for(self.bandwidths[-1])

    @property
    def segment_length(self) -> int | None:
        """Samples per segment, or None when the whole recording is one segment."""
        return None if self.segment is None else int(self.segment * self.sample_rate)

    @property
    def segment_stride(self) -> int | None:
        """Samples from one segment's start to the next one's, or None."""
        length = self.segment_length
        return None if length is None else max(1, int((1 - self.overlap) * length))

    def n_q(self, bandwidth: float | None = None) -> int:
        """Codebooks that `bandwidth` (kbps) uses; None means all of them.

        Raises ValueError for a bandwidth that the model does not support.
        """
        if bandwidth is None:
            return self.n_codebooks
        if bandwidth not in self.bandwidths:
            supported = ", ".join(f"{b:g}" for b in self.bandwidths)
            raise ValueError(
                f"bandwidth {bandwidth!r} kbps is not supported by {self.name}: use {supported}"
            )
        return self._codebooks_for(bandwidth)

    def _codebooks_for(self, bandwidth: float) -> int:
        return max(1, int(bandwidth * 1000 // (self.frame_rate * self.codebook_bits)))


CONFIGS: dict[str, ModelConfig] = {
    config.name: config
    for config in (
        ModelConfig(
            name="encodec_24khz",
            sample_rate=24000,
            channels=1,
            bandwidths=(1.5, 3.0, 6.0, 12.0, 24.0),
            causal=True,
            norm="weight_norm",
            normalize=False,
        ),
        ModelConfig(
            name="encodec_48khz",
            sample_rate=48000,
            channels=2,
            bandwidths=(3.0, 6.0, 12.0, 24.0),
            causal=False,
            norm="time_group_norm",
            normalize=True,
            segment=1.0,
        ),
        ModelConfig(
            name="stereo_48khz_large",
            sample_rate=48000,
            channels=2,
            bandwidths=(3.0, 6.0, 12.0, 24.0),
            causal=True,
            norm="weight_norm",
            normalize=False,
            pad_mode="constant",
        ),
        ModelConfig(
            name="stereo_48khz",
            sample_rate=48000,
            channels=2,
            bandwidths=(3.0, 6.0, 12.0, 24.0),
            causal=True,
            norm="weight_norm",
            normalize=False,
            dimension=64,
            n_filters=16,
            ratios=(5, 4, 4, 4),
            lstm_layers=1,
            pad_mode="constant",
        ),
        ModelConfig(
            name="nano_24khz",
            sample_rate=24000,
            channels=1,
            bandwidths=(1.5, 3.0, 6.0, 12.0),
            causal=True,
            norm="weight_norm",
            normalize=False,
            dimension=64,
            n_filters=16,
            ratios=(5, 4, 4, 4),
            lstm_layers=1,
            pad_mode="constant",
        ),
        # MusicGen's codec, under the name of its transformers repository, whose config.json says
        # reflect padding (audiocraft's recipe says constant). Where a checkpoint carries its own
        # configuration, that decides.
        ModelConfig(
            name="encodec_32khz",
            sample_rate=32000,
            channels=1,
            bandwidths=(2.2,),
            causal=False,
            norm="weight_norm",
            normalize=False,
            n_filters=64,
            ratios=(8, 5, 4, 4),
            true_skip=True,
            codebook_size=2048,
        ),
        # AudioGen's codec, which audiocraft alone published: no name but its rate, and constant
        # padding, as in audiocraft's recipe.
        ModelConfig(
            name="encodec_16khz",
            sample_rate=16000,
            channels=1,
            bandwidths=(2.2,),
            causal=False,
            norm="weight_norm",
            normalize=False,
            n_filters=64,
            pad_mode="constant",
            true_skip=True,
            codebook_size=2048,
        ),
    )
}


def known_as(config: ModelConfig) -> ModelConfig:
    """The known configuration that equals `config` but for the name, or else `config`."""
    for known in CONFIGS.values():
        if replace(config, name=known.name) == known:
            return known
    return config


def typed(value: Any, default: Any, name: str) -> Any:
    """A value of another project's configuration as the type of `default`: lists as tuples, any
    number where the default is None. Raises ValueError, which calls it `name`, for another type."""
    if isinstance(default, tuple):
        if isinstance(value, list) and value:
            return tuple(typed(item, default[0], name) for item in value)
    elif isinstance(default, bool | str):
        if isinstance(value, type(default)):
            return value
    elif isinstance(value, int if isinstance(default, int) else int | float):
        return value
    raise ValueError(f"{name} = {value!r} is not supported, expected a value such as {default!r}")
