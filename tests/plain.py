"""The operations of a program as docs/program.md says them, in numpy and float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from programs import Tensors, from_bfloat16

Rows = npt.NDArray[np.float64]  # [rows, channels]


def run_graph(ops: list[dict[str, Any]], tensors: Tensors, rows: Rows) -> Rows:
    """The result of a graph without norms, of a whole signal."""
    values = [rows.astype(np.float64)]
    for op in ops:
        x = values[op["input"]]
        if op["elu"]:
            x = np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
        weight, bias = (_exact(tensors[op[key]]) for key in ("weight", "bias"))
        if op["op"] == "conv":
            y = _conv(op, x, weight) + bias
        elif op["op"] == "conv_transpose":
            y = _conv_transpose(op, x, weight, bias)
        else:
            y = _lstm(x, weight, _exact(tensors[op["recurrent"]]), bias)
        values.append(y if op.get("add") is None else y + values[op["add"]])
    return values[-1]


def _exact(array: npt.NDArray[Any]) -> Rows:
    widened = from_bfloat16(array) if array.dtype == np.uint16 else array
    return widened.astype(np.float64)


def _conv(op: dict[str, Any], x: Rows, weight: Rows) -> Rows:
    kernel, stride = op["kernel"], op["stride"]
    left, right = op["pad"][0], op["pad"][1] + -len(x) % stride
    if op["pad_mode"] == "constant":
        padded = np.pad(x, ((left, right), (0, 0)))
    else:
        missing = max(0, max(left, right) + 1 - len(x))
        longer = np.pad(x, ((0, missing), (0, 0)))
        padded = np.pad(longer, ((left, right), (0, 0)), mode="reflect")
        padded = padded[: len(padded) - missing]
    count = -(-len(x) // stride)
    windows = [padded[t * stride : t * stride + kernel].ravel() for t in range(count)]
    return np.stack(windows) @ weight


def _conv_transpose(op: dict[str, Any], x: Rows, weight: Rows, bias: Rows) -> Rows:
    stride = op["stride"]
    around = np.pad(x, ((1, 1), (0, 0)))
    pairs = np.concatenate([around[:-1], around[1:]], axis=1)
    y = (pairs @ weight + np.tile(bias, stride)).reshape(-1, len(bias))
    return y[op["trim_left"] :][: len(x) * stride]


def _lstm(x: Rows, weight: Rows, recurrent: Rows, bias: Rows) -> Rows:
    h = c = np.zeros(len(recurrent))
    out = []
    for row in x:
        i, f, g, o = np.split(bias + row @ weight + h @ recurrent, 4)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
        out.append(h)
    return np.stack(out)
