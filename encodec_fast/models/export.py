"""Turns a PyTorch model into a program: the file the native core runs (docs/program.md)."""

from __future__ import annotations

import copy
import itertools
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.weight_norm import WeightNorm

from encodec_fast.models.config import ModelConfig
from encodec_fast.models.encodec import EncodecModel
from encodec_fast.models.seanet import LSTM, Conv1d, ConvTranspose1d, ResidualUnit
from encodec_fast.program import FORMAT, METADATA_KEY

Op = dict[str, Any]

# What weights may be stored as.
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def as_array(tensor: Tensor | nn.Module | None) -> npt.NDArray[np.float32]:
    """A parameter as contiguous float32."""
    assert isinstance(tensor, Tensor)
    return np.ascontiguousarray(tensor.detach().cpu().float().numpy())


def conv_weight(conv: nn.Conv1d | nn.ConvTranspose1d) -> Tensor:
    """Its weight as the next call would use it: PyTorch's old weight norm sets it only then. Made
    on the CPU, wherever it is, because other devices round otherwise."""
    hooks = conv._forward_pre_hooks.values()
    norms = [hook for hook in hooks if isinstance(hook, WeightNorm)]
    if norms:
        names = [norms[0].name + part for part in ("_g", "_v")]
        parts: Any = SimpleNamespace(**{name: getattr(conv, name).detach().cpu() for name in names})
        weight: Tensor = norms[0].compute_weight(parts)
        return weight
    on_cpu = next(conv.parameters()).device.type == "cpu"
    if is_parametrized(conv, "weight") and not on_cpu:
        parametrized: Any = conv.parametrizations
        tensors = itertools.chain(conv.parameters(), conv.buffers())
        on_cpu_now = {id(tensor): tensor.detach().cpu() for tensor in tensors}
        weight = copy.deepcopy(parametrized.weight, on_cpu_now)()
        return weight
    return conv.weight


class ConvLayer(Protocol):
    """A convolution of models/seanet.py, or of another package's model, as the export reads it."""

    @property
    def conv(self) -> nn.Conv1d: ...
    @property
    def norm(self) -> nn.GroupNorm | None: ...
    @property
    def causal(self) -> bool: ...
    @property
    def pad_mode(self) -> str: ...


class TransposedLayer(Protocol):
    """The same for a transposed convolution of kernel 2 * stride."""

    @property
    def conv(self) -> nn.ConvTranspose1d: ...
    @property
    def norm(self) -> nn.GroupNorm | None: ...
    @property
    def causal(self) -> bool: ...


class Operations:
    """Collects the operations and tensors of one graph; `value` is the latest output."""

    def __init__(self, prefix: str, tensors: dict[str, npt.NDArray[np.float32]]) -> None:
        self.prefix = prefix
        self.tensors = tensors
        self.ops: list[Op] = []
        self.value = 0
        self.elu = False

    def _tensor(self, name: str, array: npt.NDArray[np.float32]) -> str:
        key = f"{self.prefix}.{len(self.ops)}.{name}"
        self.tensors[key] = np.ascontiguousarray(array)
        return key

    def _append(self, op: Op) -> int:
        self.ops.append({**op, "elu": self.elu})
        self.elu = False
        self.value = len(self.ops)
        return self.value

    def _norm(self, norm: nn.GroupNorm | None) -> Op | None:
        if norm is None:
            return None
        return {
            "scale": self._tensor("norm.scale", as_array(norm.weight)),
            "offset": self._tensor("norm.offset", as_array(norm.bias)),
            "eps": norm.eps,
        }

    def conv(self, layer: ConvLayer, source: int, add: int | None = None) -> int:
        (stride,), (dilation,) = layer.conv.stride, layer.conv.dilation
        if dilation != 1:
            raise ValueError(f"model: expected convolutions without dilation, found {dilation}")
        weight = as_array(conv_weight(layer.conv))  # [out, in, kernel]
        out, _, kernel = weight.shape
        padding = kernel - stride
        right = 0 if layer.causal else padding // 2
        return self._append(
            {
                "op": "conv",
                "input": source,
                "add": add,
                "kernel": kernel,
                "stride": stride,
                "pad": [padding - right, right],
                "pad_mode": layer.pad_mode,
                "weight": self._tensor("weight", weight.transpose(2, 1, 0).reshape(-1, out)),
                "bias": self._tensor("bias", as_array(layer.conv.bias)),
                "norm": self._norm(layer.norm),
            }
        )

    def conv_transpose(self, layer: TransposedLayer) -> None:
        weight = as_array(conv_weight(layer.conv))  # [in, out, 2 * stride]
        (stride,) = layer.conv.stride
        # Output row t, phase j takes tap j of input row t and tap j + stride of row t - 1.
        halves = (weight[:, :, stride:], weight[:, :, :stride])
        rows = [half.transpose(0, 2, 1).reshape(weight.shape[0], -1) for half in halves]
        self._append(
            {
                "op": "conv_transpose",
                "input": self.value,
                "stride": stride,
                "trim_left": 0 if layer.causal else stride - stride // 2,
                "weight": self._tensor("weight", np.concatenate(rows)),
                "bias": self._tensor("bias", as_array(layer.conv.bias)),
                "norm": self._norm(layer.norm),
            }
        )

    def residual(self, first: ConvLayer, second: ConvLayer, shortcut: ConvLayer | None) -> None:
        """shortcut(x) + second(ELU(first(ELU(x))))."""
        source = self.value
        skip = source if shortcut is None else self.conv(shortcut, source)
        self.elu = True
        hidden = self.conv(first, source)
        self.elu = True
        self.conv(second, hidden, add=skip)

    def lstm(self, lstm: nn.LSTM) -> None:
        """x + lstm(x)."""
        source = self.value
        for layer in range(lstm.num_layers):
            last = layer == lstm.num_layers - 1
            parameters = {
                name: as_array(getattr(lstm, f"{name}_l{layer}"))
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            }
            self._append(
                {
                    "op": "lstm",
                    "input": self.value,
                    "add": source if last else None,
                    "weight": self._tensor("weight", parameters["weight_ih"].T),
                    "recurrent": self._tensor("recurrent", parameters["weight_hh"].T),
                    "bias": self._tensor("bias", parameters["bias_ih"] + parameters["bias_hh"]),
                }
            )

    def layers(self, layers: nn.ModuleList) -> list[Op]:
        for layer in layers:
            if isinstance(layer, Conv1d):
                self.conv(layer, self.value)
            elif isinstance(layer, ConvTranspose1d):
                self.conv_transpose(layer)
            elif isinstance(layer, ResidualUnit):
                first, second = (part for part in layer.block if isinstance(part, Conv1d))
                skip = layer.shortcut
                self.residual(first, second, skip if isinstance(skip, Conv1d) else None)
            elif isinstance(layer, LSTM):
                self.lstm(layer.lstm)
            else:
                self.elu = True
        return self.ops


def _header(config: ModelConfig) -> dict[str, Any]:
    if config.norm == "time_group_norm" and config.segment_length is None:
        raise ValueError(
            f"model {config.name}: group norm over whole recordings cannot be exported; expected a "
            "model that codes segments, or one without group norm"
        )
    return {
        "format": FORMAT,
        "name": config.name,
        "sample_rate": config.sample_rate,
        "channels": config.channels,
        "hop": config.hop,
        "bandwidths": [[b, config.n_q(b)] for b in config.bandwidths],
        "codebooks": "codebooks",
        "normalize": config.normalize,
        "segment_length": config.segment_length,
        "segment_stride": config.segment_stride,
    }


def stored_as(
    tensors: dict[str, npt.NDArray[np.float32]], weights: frozenset[str], dtype: str
) -> dict[str, Tensor]:
    """The tensors as they are written: bfloat16 is for `weights` alone."""
    stored = {}
    for name, array in tensors.items():
        rounded = "float32" if dtype == "bfloat16" and name not in weights else dtype
        tensor = torch.from_numpy(array).to(DTYPES[rounded])
        if not torch.isfinite(tensor).all():
            raise ValueError(f"model: tensor {name} has values that {dtype} cannot hold")
        stored[name] = tensor
    return stored


def export_model(model: EncodecModel, path: str | Path, dtype: str = "float32") -> None:
    """Write `model` as a program file that runs without PyTorch.

    dtype "float32" keeps the weights exact. "float16" rounds every tensor once and halves the file.
    "bfloat16" rounds the matrices of the operations once; they stay in that form in memory, which
    halves the traffic of frame-by-frame operation. The arithmetic is float32 in all of them. The
    file appears under its name only when it is complete. Raises ValueError for a model that the
    native core cannot run (dilated convolutions, or group norm without segments) and for weights
    that the type cannot hold.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype: expected {', '.join(map(repr, DTYPES))}, found {dtype!r}")
    tensors: dict[str, npt.NDArray[np.float32]] = {}
    header = _header(model.config)
    header["encoder"] = Operations("encoder", tensors).layers(model.encoder.layers)
    header["decoder"] = Operations("decoder", tensors).layers(model.decoder.layers)
    ops = header["encoder"] + header["decoder"]
    weights = frozenset(op[key] for op in ops for key in ("weight", "recurrent") if key in op)
    books = [model.quantizer.codebook(q).embed for q in range(model.config.n_codebooks)]
    tensors["codebooks"] = np.stack([as_array(book) for book in books])
    stored = stored_as(tensors, weights, dtype)
    write_tensors(path, stored, METADATA_KEY, header)


def write_tensors(
    path: str | Path, tensors: dict[str, Tensor], key: str, description: dict[str, Any]
) -> None:
    """Write a safetensors file whose metadata holds `description` as JSON under `key`.

    It appears under its name only when it is complete.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        data = save(tensors, metadata={key: json.dumps(description)})
        partial.write_bytes(data)  # with the permissions of the umask, unlike save_file
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
