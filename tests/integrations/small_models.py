"""Small models of transformers and encodec with random weights whose codes vary.

They are built without what differs between versions of transformers (its weight norm, its padding).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

SIZES = {
    "num_filters": 8,
    "hidden_size": 32,
    "codebook_size": 64,
    "upsampling_ratios": [5, 4, 2, 2],
}
RATES = {
    "24khz": {"target_bandwidths": [1.8, 7.2], "sampling_rate": 24000},
    "48khz": {
        "target_bandwidths": [7.2, 14.4],
        "sampling_rate": 48000,
        "audio_channels": 2,
        "normalize": True,
        "chunk_length_s": 1.0,
        "overlap": 0.01,
        "norm_type": "time_group_norm",
        "use_causal_conv": False,
    },
}


def small_model(rate: str, seed: int = 0, **changes: Any) -> Any:
    """A small transformers.EncodecModel in eval mode."""
    from transformers import EncodecConfig, EncodecModel

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = EncodecModel(EncodecConfig(**SIZES, **RATES[rate], **changes)).eval()
        scale_weights(model)
        channels = model.config.audio_channels
        fit_codebooks(model.encoder, model.quantizer.layers, noise(1, channels, 24000, seed))
    return model


def scale_weights(model: torch.nn.Module) -> None:
    """Random weights, large enough that signals reach the end, and biases that are not zero."""
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(0, 0.1)
        elif name.endswith(("original0", "weight_g")):  # of weight norm: the lengths
            parameter.mul_(1.5)


def fit_codebooks(encoder: Any, layers: Any, x: Tensor) -> None:
    """Entries as far from zero as the residuals that reach them."""
    residual = encoder(x).transpose(1, 2).reshape(-1, encoder(x).shape[1])
    for layer in layers:
        book = layer.codebook if hasattr(layer.codebook, "embed") else layer._codebook
        drawn = torch.randint(len(residual), (len(book.embed),))
        book.embed.copy_(residual[drawn] + residual.std() * 0.3 * torch.randn_like(book.embed))
        chosen = (residual @ book.embed.T - book.embed.pow(2).sum(1) / 2).argmax(1)
        residual = residual - book.embed[chosen]


def noise(batch: int, channels: int, samples: int, seed: int = 1) -> Tensor:
    """Noise whose level moves, as float32 [batch, channels, samples]."""
    rng = np.random.default_rng(seed)
    level = np.exp(np.cumsum(rng.normal(0, 0.02, (batch, 1, samples)), axis=2).clip(-3, 1))
    return torch.from_numpy(
        (0.2 * level * rng.normal(size=(batch, channels, samples))).astype("f4")
    )


def snr(reference: Tensor, found: Tensor) -> float:
    """In dB."""
    reference, found = reference.detach().double(), found.detach().double()
    error = (reference - found).pow(2).sum()
    return float(10 * torch.log10(reference.pow(2).sum() / error.clamp_min(1e-300)))
