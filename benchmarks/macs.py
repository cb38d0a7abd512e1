"""Multiply-accumulates: how many a program needs, and how many a second one core can make."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from timing import timed

from encodec_fast import _native
from encodec_fast.program import METADATA_KEY

# Four layers of 64 KiB of weights and 64 KiB of activations: all of it stays in the second level.
_WIDTH, _ROWS, _LAYERS = 128, 128, 4


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates per second of audio; `search` is one codebook's share of encoding."""

    encoder: float
    decoder: float
    search: float


def count(path: Path) -> Macs:
    """Count those of a program file from the shapes of its weights."""
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()[METADATA_KEY])
        # An open file has keys() but cannot be iterated.
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    frames = header["sample_rate"] / header["hop"]
    overlap = 1.0
    if header["segment_length"] is not None:
        overlap = header["segment_length"] / header["segment_stride"]
    _, size, dimension = shapes[header["codebooks"]]
    return Macs(
        overlap * _graph(header["encoder"], header["sample_rate"], shapes),
        overlap * _graph(header["decoder"], frames, shapes),
        overlap * frames * size * dimension,
    )


def _graph(ops: list[dict[str, Any]], rate: float, shapes: dict[str, list[int]]) -> float:
    """Per second, when the input has `rate` rows per second."""
    rates, total = [rate], 0.0
    for op in ops:
        rows = rates[op["input"]]
        weights = math.prod(shapes[op["weight"]])
        if op["op"] == "conv":
            rows /= op["stride"]
        if op["op"] == "lstm":
            weights += math.prod(shapes[op["recurrent"]])
        total += rows * weights
        rates.append(rows * op["stride"] if op["op"] == "conv_transpose" else rows)
    return total


class Peak:
    """The fp32 peak of one core: the larger of two measurements, each the best of several calls.

    One is PyTorch's product of two 1024 x 1024 matrices, the other our own kernels in four layers
    of 128 x 128 over 128 rows.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._matrices = torch.rand(2, 1024, 1024)
        graph = _native.Graph(_WIDTH)
        for layer in range(_LAYERS):
            weight = rng.standard_normal((_WIDTH, _WIDTH), np.float32) / _WIDTH
            bias = np.zeros(_WIDTH, np.float32)
            graph.conv(layer, -1, False, 1, 1, 0, 0, False, weight, bias, None, None, 0.0)
        graph.seal()
        entries = rng.standard_normal((1, 16, _WIDTH), np.float32)
        # A decoder: its codebooks only gather rows, an encoder's would search.
        self._decoder = _native.Decoder(graph, _native.Codebooks(entries), 1, True)
        self._codes = rng.integers(0, 16, (1, _ROWS)).astype(np.uint16)

    def measure(self) -> float:
        """Multiply-accumulates per second, now."""
        theirs = min(timed(torch.mm, *self._matrices)[0] for _ in range(5))
        ours = min(timed(self._decoder.run, [self._codes], [False], [1.0])[0] for _ in range(200))
        return max(1024**3 / theirs, _ROWS * _LAYERS * _WIDTH**2 / ours)
