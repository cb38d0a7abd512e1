"""Random programs that are legal: chains of operations with additions, beyond what models use."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from programs import Tensors

Pick = Callable[[int], int]  # a number below its argument
Op = dict[str, Any]


class Composer:
    """Collects the operations of one graph: shapes that fit, and all else as `pick` says."""

    def __init__(self, pick: Pick, tensors: Tensors, side: str, channels: int, kind: str):
        self.pick, self.tensors, self.side = pick, tensors, side
        self.causal, self.segmented = kind == "causal", kind == "segments"
        self.least_padding = int(kind == "ahead")  # of a convolution, so that it can look ahead
        self.rng = np.random.default_rng(pick(100))
        self.ops: list[Op] = []
        self.values = [(channels, Fraction(1))]

    def tensor(self, what: str, *shape: int) -> str:
        name = f"{self.side}{len(self.ops)}.{what}"
        array = self.rng.standard_normal(shape) / shape[0] ** 0.5
        kind = self.pick(4) if len(shape) == 2 else 0
        if what == "r":  # bfloat16 exactly if the operation's other matrix is
            matrix = self.tensors[f"{self.side}{len(self.ops)}.w"]
            kind = 1 if matrix.dtype == np.uint16 else 2 * (kind % 2)
        if kind == 1:
            self.tensors[name] = (array.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        else:
            self.tensors[name] = array.astype(np.float16 if kind == 2 else np.float32)
        return name

    def norm(self, size: int) -> Op | None:
        if not self.segmented or self.pick(2):
            return None
        return {"scale": self.tensor("s", size), "offset": self.tensor("o", size), "eps": 1e-5}

    def append(self, op: Op, source: int, channels: int, rate: Fraction) -> None:
        self.ops.append({"input": source, "elu": bool(self.pick(2)), **op})
        self.values.append((channels, rate))

    def conv(self, channels: int, stride: int, source: int = -1, add: int | None = None) -> None:
        source = source % len(self.values)
        width, rate = self.values[source]
        if add is None:
            same = [v for v, s in enumerate(self.values) if s == (channels, rate / stride)]
            add = same[self.pick(len(same))] if same and self.pick(2) else None
        kernel = (2 * stride - 1) + self.least_padding + self.pick(4)
        padding = kernel - stride
        right = 0 if self.causal else self.pick(padding + 1)
        op = {"op": "conv", "kernel": kernel, "stride": stride, "pad": [padding - right, right]}
        op["pad_mode"] = ("constant", "reflect")[self.pick(2)]
        op["weight"] = self.tensor("w", kernel * width, channels)
        op |= {"bias": self.tensor("b", channels), "norm": self.norm(channels), "add": add}
        self.append(op, source, channels, rate / stride)

    def up(self, channels: int, stride: int) -> None:
        width, rate = self.values[-1]
        op = {"op": "conv_transpose", "stride": stride}
        op["trim_left"] = 0 if self.causal else self.pick(stride + 1)
        op["weight"] = self.tensor("w", 2 * width, stride * channels)
        op |= {"bias": self.tensor("b", channels), "norm": self.norm(channels)}
        self.append(op, len(self.values) - 1, channels, rate * stride)

    def lstm(self, hidden: int) -> None:
        width, rate = self.values[-1]
        same = [v for v, s in enumerate(self.values) if s == (hidden, rate)]
        op = {"op": "lstm", "add": same[self.pick(len(same))] if same and self.pick(2) else None}
        op["weight"] = self.tensor("w", width, 4 * hidden)
        op["recurrent"] = self.tensor("r", hidden, 4 * hidden)
        self.append(
            {**op, "bias": self.tensor("b", 4 * hidden)}, len(self.values) - 1, hidden, rate
        )

    def some(self) -> None:
        """An operation that any graph may have next."""
        kind, width = self.pick(6), (1, 3, 8, 17)[self.pick(4)]
        if kind == 0:
            self.lstm(width)
        elif kind < 3:  # reads an earlier value beside the last one
            last, (channels, rate) = len(self.values) - 1, self.values[-1]
            same = [v for v, s in enumerate(self.values) if s[1] == rate]
            self.conv(channels, 1, same[self.pick(len(same))], last)
        else:
            self.conv(width, 1)


def compose(pick: Pick, kind: str) -> tuple[dict[str, Any], Tensors]:
    """Header and tensors of a random legal program: "causal", "ahead" (padded on both sides, or
    any), or for "segments" of 90 samples."""
    tensors: Tensors = {}
    channels, dimension, entries = 1 + pick(3), 1 + pick(9), 2 + pick(40)
    strides = [1 + pick(3) for _ in range(pick(4))]
    encoder = Composer(pick, tensors, "e", channels, kind)
    for stride in strides:
        encoder.some()
        encoder.conv((2, 5, 16)[pick(3)], stride)
    encoder.conv(dimension, 1)
    decoder = Composer(pick, tensors, "d", dimension, kind)
    for stride in strides:
        decoder.some()
        decoder.up((2, 5, 16)[pick(3)], stride)
    decoder.conv(channels, 1)
    for side in (encoder, decoder):  # nothing else may have made it so
        if kind == "segments":
            size = side.values[-1][0]
            scale, offset = side.tensor("s", size), side.tensor("o", size)
            side.ops[-1]["norm"] = {"scale": scale, "offset": offset, "eps": 1e-5}
        elif kind == "ahead" and not (padding := side.ops[-1]["pad"])[1]:
            padding[:] = 0, sum(padding)
    tensors["books"] = encoder.rng.standard_normal((3, entries, dimension)).astype(np.float32)
    header = {
        **{"format": 1, "name": "composed", "sample_rate": 8000, "channels": channels},
        **{"hop": int(np.prod(strides, dtype=int)), "bandwidths": [[1.0, 1], [3.0, 3]]},
        **{"codebooks": "books", "normalize": False, "encoder": encoder.ops},
        **{"decoder": decoder.ops, "segment_length": None, "segment_stride": None},
    }
    if kind == "segments":
        header |= {"normalize": bool(pick(2)), "segment_length": 90, "segment_stride": 80}
    return header, tensors
