"""The configuration of an EncodecModel of transformers, as ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from encodec_fast.models.config import CONFIGS, ModelConfig, known_as, typed

# transformers' field, our field; the defaults of a field that config.json lacks are the 24 kHz
# model's in both.
_HF_FIELDS = {
    "sampling_rate": "sample_rate",
    "audio_channels": "channels",
    "target_bandwidths": "bandwidths",
    "use_causal_conv": "causal",
    "norm_type": "norm",
    "normalize": "normalize",
    "chunk_length_s": "segment",
    "overlap": "overlap",
    "hidden_size": "dimension",
    "num_filters": "n_filters",
    "upsampling_ratios": "ratios",
    "kernel_size": "kernel_size",
    "last_kernel_size": "last_kernel_size",
    "residual_kernel_size": "residual_kernel_size",
    "num_residual_layers": "n_residual_layers",
    "compress": "compress",
    "num_lstm_layers": "lstm_layers",
    "pad_mode": "pad_mode",
    "codebook_size": "codebook_size",
}


def read_transformers_config(path: Path) -> ModelConfig:
    """The configuration in a transformers `config.json`.

    Raises ValueError for a file that is no EnCodec configuration and for settings that our models
    do not have.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from None
    if not isinstance(raw, dict) or raw.get("model_type") != "encodec":
        raise ValueError(f"{path}: not the configuration of an EncodecModel")
    _refuse_unsupported(raw, path)
    defaults = CONFIGS["encodec_24khz"]
    values: dict[str, Any] = {}
    for theirs, ours in _HF_FIELDS.items():
        if raw.get(theirs) is not None:
            values[ours] = typed(raw[theirs], getattr(defaults, ours), f"{path}: {theirs}")
    try:
        config = replace(
            defaults,
            name=path.parent.name,
            true_skip=not raw.get("use_conv_shortcut", True),
            **values,
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None
    return known_as(config)


def _refuse_unsupported(raw: Mapping[str, Any], path: Path) -> None:
    """Refuse what changes the computation and has no field in ModelConfig."""
    dimension = raw.get("hidden_size", 128)
    expected = {"codebook_dim": dimension, "trim_right_ratio": 1.0}
    if raw.get("num_residual_layers", 1) > 1:
        expected["dilation_growth_rate"] = 2
    for name, value in expected.items():
        found = raw.get(name)
        if found is not None and found != value:
            raise ValueError(f"{path}: {name} = {found} is not supported, only {value}")
