"""audiocraft's EncodecModel (24, 32 and 16 kHz), alone or inside MusicGen, AudioGen and others."""

from __future__ import annotations

from typing import Any

from audiocraft.models.encodec import EncodecModel
from audiocraft.modules import StreamableConv1d, StreamableConvTranspose1d, StreamableLSTM
from audiocraft.modules.seanet import SEANetDecoder, SEANetEncoder, SEANetResnetBlock
from audiocraft.quantization.core_vq import (
    EuclideanCodebook,
    ResidualVectorQuantization,
    VectorQuantization,
)
from torch import nn

from encodec_fast.integrations.modules import AcceleratedNetwork, AcceleratedVq, Kinds, Stand
from encodec_fast.integrations.seanet import Classes, UnsupportedError

CODEC = EncodecModel


class AcceleratedEncoder(AcceleratedNetwork, SEANetEncoder):
    """SEANetEncoder on the native core."""


class AcceleratedDecoder(AcceleratedNetwork, SEANetDecoder):
    """SEANetDecoder on the native core."""


class AcceleratedQuantizer(AcceleratedVq, ResidualVectorQuantization):
    """ResidualVectorQuantization on the native core."""


_KINDS = Kinds(
    Classes(StreamableConv1d, StreamableConvTranspose1d, SEANetResnetBlock, StreamableLSTM),
    "model",
    AcceleratedEncoder,
    AcceleratedDecoder,
    AcceleratedQuantizer,
    (nn.ModuleList, VectorQuantization, EuclideanCodebook, nn.Identity),
)


def stands(model: Any, threads: int | None) -> list[Stand]:
    """What can stand in for the modules of an EncodecModel. Raises UnsupportedError."""
    if any(layer.channels_last for layer in model.quantizer.vq.layers):
        raise UnsupportedError("its codebooks take channels last")
    return _KINDS.reference_stands(model, threads)


def attach(model: Any, exact_lengths: bool) -> None:
    """Nothing but to raise UnsupportedError for exact_lengths."""
    if exact_lengths:
        raise UnsupportedError("exact_lengths: audiocraft has no padding masks")


def detach(model: Any) -> None:
    """Nothing to undo."""
