"""Distillation from a pretrained speech encoder, such as HuBERT or WavLM: an optional loss.

It draws the first codebooks towards what the encoder makes of the same speech, so that they hold
what is said rather than how it sounds (SpeechTokenizer, arXiv 2308.16692). The encoder comes
through the package transformers and is never trained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encodec_fast.models.config import ModelConfig
from encodec_fast.models.rvq import ResidualVectorQuantizer
from encodec_fast.training.resampling import resample

# Weights that checkpoints may lack: the mask of the encoder's own training.
_NEEDLESS = "masked_spec_embed"


@dataclass(frozen=True)
class DistillationSettings:
    """The optional distillation loss.

    model: a folder that `save_pretrained` of transformers wrote, or a model's name there; None for
    no distillation. layer: the hidden states to learn, 0 for the transformer's input, 1 for its
    first layer's output, ...; None for the mean of all, as published. weight: the loss is
    multiplied by it. codebooks: how many of the first codebooks learn them, together. kinds: the
    kinds of recordings that are distilled. Raises ValueError.
    """

    model: str | None = None
    layer: int | None = None
    weight: float = 1.0
    codebooks: int = 1
    kinds: tuple[str, ...] = ("speech",)

    def __post_init__(self) -> None:
        if self.model is not None and not self.model:
            raise ValueError("model: expected a folder or a name, found an empty string")
        if self.layer is not None and self.layer < 0:
            raise ValueError(f"layer: expected at least 0, or none, found {self.layer}")
        if not 0 < self.weight < math.inf:
            raise ValueError(f"weight: expected above 0, found {self.weight}")
        if self.codebooks < 1:
            raise ValueError(f"codebooks: expected at least 1, found {self.codebooks}")
        if not self.kinds:
            raise ValueError("kinds: expected at least one kind, found none")


class Distillation(nn.Module):
    """The loss, and the projection of the codec's latents to the speech encoder's width.

    The projection is trained with the codec; the parameters and the state are its alone: the
    speech encoder, in eval mode and float32, is no part of them. Raises ValueError for settings
    without a model, an encoder that is not one of waveforms, a layer it lacks, more codebooks than
    the codec has, damaged files, and without the package transformers; OSError where the model is
    not found.
    """

    projection: nn.Linear

    def __init__(self, settings: DistillationSettings, config: ModelConfig) -> None:
        super().__init__()
        if settings.model is None:
            raise ValueError("model: expected a folder or a name, found none")
        if settings.codebooks > config.n_codebooks:
            raise ValueError(
                f"codebooks: expected at most the codec's {config.n_codebooks},"
                f" found {settings.codebooks}"
            )
        self.settings = settings
        self._config = config
        teacher, self._rate, self._normalised = _load(settings.model)
        layers = teacher.config.num_hidden_layers
        if settings.layer is not None and settings.layer > layers:
            raise ValueError(f"layer: expected at most {layers}, found {settings.layer}")
        # In a list, which hides it from parameters(), state_dict() and train().
        self._teacher = [teacher]
        kernels, strides = teacher.config.conv_kernel, teacher.config.conv_stride
        self._hop = math.prod(strides)
        self._field = 1 + sum(
            (kernel - 1) * math.prod(strides[:index]) for index, kernel in enumerate(kernels)
        )
        self.projection = nn.Linear(config.dimension, teacher.config.hidden_size)

    def forward(self, latents: Tensor, x: Tensor, kinds: Sequence[str] | None = None) -> Tensor:
        """The loss, a scalar from 0.31 (all alike) to 1.31, before its weight.

        latents: float [B, D, F] of the first codebooks (`first_latents`). x: the samples that they
        code, [B, C, T], F = ceil(T / hop). kinds: of the B recordings; those that the settings do
        not name are left out (None: all are in). Without any, the loss is 0 with a gradient of 0.

        Per recording and dimension of the speech encoder, the cosine of projection and target over
        time; -log(sigmoid(cosine)), meant over dimensions and recordings, as in the authors' code.
        """
        frames = -(-x.shape[-1] // self._config.hop)
        if x.dim() != 3 or latents.shape != (len(x), self._config.dimension, frames):
            raise ValueError(
                f"latents: expected shape {[len(x), self._config.dimension, frames]} for samples"
                f" {list(x.shape)}, found {list(latents.shape)}"
            )
        if kinds is not None:
            chosen = [i for i, kind in enumerate(kinds) if kind in self.settings.kinds]
            latents, x = latents[chosen], x[chosen]
        projected: Tensor = self.projection(latents.transpose(1, 2))
        if not len(x):
            return projected.sum()  # 0, with the graph that distributed training waits for
        similar = F.cosine_similarity(projected.float(), self.targets(x), dim=1)
        return -F.logsigmoid(similar).mean()

    @torch.no_grad()
    def targets(self, x: Tensor) -> Tensor:
        """What the speech encoder makes of samples [B, C, T]: float32 [B, F, width], a row per
        frame of the codec: the mean over its span, each of the encoder's rows held for its own.

        The samples are mixed to one channel and resampled; zeros around them centre the encoder's
        windows on the spans of its rows.
        """
        hop, rate = self._config.hop, self._config.sample_rate
        frames = -(-x.shape[-1] // hop)
        # Row i spans the samples from i * hop on, in the encoder's rate; they cover all F frames.
        rows = -(-frames * hop * self._rate // (rate * self._hop))
        with torch.autocast(x.device.type, enabled=False):
            wave = resample(x.float().mean(dim=1), rate, self._rate)
            if self._normalised:
                variance, mean = torch.var_mean(wave, dim=-1, correction=0, keepdim=True)
                wave = (wave - mean) / (variance + 1e-7).sqrt()
            hidden = self._hidden(wave, rows)
            return _overlaps(frames, hop / rate, rows, self._hop / self._rate).to(hidden) @ hidden

    def _hidden(self, wave: Tensor, rows: int) -> Tensor:
        """The encoder's hidden states [B, rows, width] of samples [B, T] at its rate."""
        before = (self._field - self._hop) // 2
        after = (rows - 1) * self._hop + self._field - before - wave.shape[-1]
        teacher = self._teacher[0].to(wave.device)
        states = teacher(F.pad(wave, (before, after)), output_hidden_states=True).hidden_states
        layer = self.settings.layer
        found: Tensor = torch.stack(states).mean(dim=0) if layer is None else states[layer]
        return found


def first_latents(
    z: Tensor, codes: Tensor, quantizer: ResidualVectorQuantizer, codebooks: int
) -> Tensor:
    """The latents [B, D, F] of the first `codebooks` codes of z [B, D, F], codes int64 [K, B, F].

    Straight through: their gradient is that of z.
    """
    with torch.no_grad():
        difference = quantizer.decode(codes[:codebooks]) - z
    return z + difference


def _overlaps(frames: int, span: float, rows: int, row_span: float) -> Tensor:
    """The share of each row's span in each frame's: float64 [frames, rows], rows add up to 1."""
    starts = torch.arange(frames, dtype=torch.float64)[:, None] * span
    row_starts = torch.arange(rows, dtype=torch.float64) * row_span
    ends, row_ends = starts + span, row_starts + row_span
    shared = (torch.minimum(ends, row_ends) - torch.maximum(starts, row_starts)).clamp(min=0)
    return shared / shared.sum(dim=1, keepdim=True)


def _load(model: str) -> tuple[Any, int, bool]:
    """The speech encoder, its sample rate, and whether its input is normalised."""
    try:
        from transformers import AutoFeatureExtractor, AutoModel
    except ImportError:
        raise ValueError(
            "model: distillation needs the package transformers (pip install transformers)"
        ) from None
    place = f"model: {model}"
    if not Path(model).is_dir() and len(Path(model).parts) > 2:  # a model's name has two at most
        raise FileNotFoundError(f"{place}: no such folder")
    if Path(model).is_dir() and not (Path(model) / "preprocessor_config.json").is_file():
        raise FileNotFoundError(f"{place}: has no preprocessor_config.json, which tells its input")
    try:
        extractors: Any = AutoFeatureExtractor
        extractor = extractors.from_pretrained(model)
        teacher, loaded = AutoModel.from_pretrained(model, output_loading_info=True)
    except OSError as error:
        raise OSError(f"{place}: not found ({_first_line(error)})") from None
    except Exception as error:  # damaged or foreign files fail anywhere in transformers
        raise ValueError(f"{place}: not a readable model ({_first_line(error)})") from None
    if not hasattr(teacher.config, "conv_stride") or not hasattr(extractor, "do_normalize"):
        found = type(teacher).__name__
        raise ValueError(f"{place}: expected an encoder of waveforms, as HuBERT, found {found}")
    lacking = sorted(key for key in loaded["missing_keys"] if _NEEDLESS not in key)
    if lacking or loaded["mismatched_keys"]:
        count, first = len(lacking), ", ".join(lacking[:2]) or "some of another shape"
        raise ValueError(f"{place}: lacks {count} of the model's weights ({first})")
    return (
        teacher.float().eval().requires_grad_(False),
        extractor.sampling_rate,
        bool(extractor.do_normalize),
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
