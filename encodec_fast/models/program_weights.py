"""Takes a program file's weights back into a PyTorch model, to train it further."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from encodec_fast.models.config import CONFIGS, ModelConfig
from encodec_fast.models.encodec import EncodecModel
from encodec_fast.models.seanet import LSTM, Conv1d, ConvTranspose1d, ResidualUnit
from encodec_fast.program import METADATA_KEY

Layer = Conv1d | ConvTranspose1d | nn.LSTM


def load_program(path: str | Path, config: ModelConfig | None = None) -> EncodecModel:
    """The model of a program file, float32, in eval mode; `config` defaults to the one of its name.

    Weights are what the file holds (rounded, where it is float16 or bfloat16). The codebooks'
    moving averages are not in it: every code starts with a use of 1. Raises FileNotFoundError, and
    ValueError for files that are no program, or not of that configuration.
    """
    source = Path(path)
    if not source.exists():
        raise FileNotFoundError(f"{path}: no such program file")
    try:
        with safe_open(source, framework="pt") as file:
            header = json.loads((file.metadata() or {})[METADATA_KEY])
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        config = config or CONFIGS[header["name"]]
        model = EncodecModel(replace(config, name=header["name"]))
        for part, graph in (("encoder", model.encoder), ("decoder", model.decoder)):
            layers = list(_in_order(graph.layers))
            ops: list[dict[str, Any]] = header[part]
            if len(_operations(layers)) != len(ops):
                raise ValueError(f"{len(ops)} operations, expected {len(_operations(layers))}")
            for (layer, index), op in zip(_operations(layers), ops, strict=True):
                stored = op | (op.get("norm") or {})
                _fill(layer, index, {key: tensors[stored[key]] for key in _TENSORS & stored.keys()})
        for number, embed in enumerate(tensors["codebooks"]):
            codebook = model.quantizer.codebook(number)
            codebook.embed.copy_(embed)
            codebook.embed_avg.copy_(embed)
            codebook.cluster_size.fill_(1)
            codebook.inited.fill_(1)
    except (SafetensorError, KeyError, TypeError, RuntimeError, IndexError, ValueError) as error:
        raise ValueError(f"{path}: not a program of a known model: {error}") from None
    return model.eval()


_TENSORS = {"weight", "bias", "recurrent", "scale", "offset"}


def _in_order(layers: nn.ModuleList) -> Iterator[Layer]:
    """The layers that became operations, in the order of the export."""
    for layer in layers:
        if isinstance(layer, ResidualUnit):
            if isinstance(layer.shortcut, Conv1d):
                yield layer.shortcut
            yield from (part for part in layer.block if isinstance(part, Conv1d))
        elif isinstance(layer, LSTM):
            yield layer.lstm
        elif isinstance(layer, Conv1d | ConvTranspose1d):
            yield layer


def _operations(layers: list[Layer]) -> list[tuple[Layer, int]]:
    """(layer, number within it): a stacked LSTM is one operation per layer of the stack."""
    return [
        (layer, index)
        for layer in layers
        for index in range(layer.num_layers if isinstance(layer, nn.LSTM) else 1)
    ]


def set_weight(conv: nn.Conv1d | nn.ConvTranspose1d, weight: Tensor) -> None:
    """Make `weight`, of the shape that it has, the convolution's, with or without weight norm."""
    if is_parametrized(conv, "weight"):
        conv.weight = weight  # the parametrisation takes it apart
    else:
        conv.weight.copy_(weight)


@torch.no_grad()
def _fill(layer: Layer, index: int, tensors: dict[str, Tensor]) -> None:
    """The inverse of the export's layouts."""
    weight, bias = tensors["weight"], tensors["bias"]
    if isinstance(layer, nn.LSTM):
        getattr(layer, f"weight_ih_l{index}").copy_(weight.t())
        getattr(layer, f"weight_hh_l{index}").copy_(tensors["recurrent"].t())
        getattr(layer, f"bias_ih_l{index}").copy_(bias)
        getattr(layer, f"bias_hh_l{index}").zero_()
        return
    conv = layer.conv
    assert isinstance(conv, nn.Conv1d | nn.ConvTranspose1d)
    assert conv.bias is not None
    if isinstance(layer, ConvTranspose1d):
        shape = (2, conv.in_channels, layer.stride, conv.out_channels)
        later, earlier = weight.reshape(shape).permute(0, 1, 3, 2)
        set_weight(conv, torch.cat([earlier, later], dim=2))
    else:
        taps = weight.reshape(conv.kernel_size[0], conv.in_channels, conv.out_channels)
        set_weight(conv, taps.permute(2, 1, 0))
    conv.bias.copy_(bias)
    if layer.norm is not None:
        layer.norm.weight.copy_(tensors["scale"])
        layer.norm.bias.copy_(tensors["offset"])
