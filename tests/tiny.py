"""Tiny random models under the released models' names: real programs that code in milliseconds."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from encodec_fast.models.encodec import EncodecModel


def tiny_model(name: str) -> EncodecModel:
    """The model called `name` with fewer channels and random weights."""
    import torch

    from encodec_fast.models.config import CONFIGS
    from encodec_fast.models.encodec import EncodecModel

    torch.manual_seed(1)
    config = replace(CONFIGS[name], n_filters=2, dimension=8, lstm_layers=1)
    model = EncodecModel(config).eval()
    for q in range(config.n_codebooks):
        model.quantizer.codebook(q).embed.normal_(std=0.3 / (q + 1))
    return model


def export_tiny_models(folder: Path) -> None:
    """Write `encodec_24khz` (causal, mono) and `encodec_48khz` (segments, stereo, normalised)."""
    from encodec_fast.models.export import export_model

    for name in ("encodec_24khz", "encodec_48khz"):
        export_model(tiny_model(name), folder / f"{name}.safetensors")


def save_tiny_checkpoint(path: Path) -> None:
    """Write a checkpoint as our trainer does."""
    import torch

    model = tiny_model("encodec_24khz")
    torch.save({"config": asdict(model.config), "model": model.state_dict()}, path)
