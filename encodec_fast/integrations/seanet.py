"""Reads another package's encoder or decoder: its tree of modules as operations of a program.

The packages' SEANets have one shape: a sequence of convolutions, residual units, an LSTM and ELUs,
each a module of a class that the package's own file names. Whatever does not compute exactly what
the native operations compute is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from torch import nn

from encodec_fast import _native
from encodec_fast.models.config import PAD_MODES
from encodec_fast.models.export import Operations
from encodec_fast.program import build_graph

# Of a convolution that shows its norm's name; transformers' and ours are checked by their modules.
_NORMS = ("none", "weight_norm", "time_group_norm")

Conv = TypeVar("Conv", nn.Conv1d, nn.ConvTranspose1d)


class UnsupportedError(ValueError):
    """A model, or a part of one, that the native core cannot stand in for; the message says why."""


@dataclass(frozen=True)
class Classes:
    """The classes of a package's layers."""

    conv: type[nn.Module]
    transposed: type[nn.Module]
    residual: type[nn.Module]
    lstm: type[nn.Module]


@dataclass(frozen=True)
class _Conv:
    conv: nn.Conv1d
    norm: nn.GroupNorm | None
    causal: bool
    pad_mode: str


@dataclass(frozen=True)
class _Transposed:
    conv: nn.ConvTranspose1d
    norm: nn.GroupNorm | None
    causal: bool


class _Arrays:
    """Weights in memory, as build_graph takes them."""

    def __init__(self, arrays: dict[str, npt.NDArray[np.float32]]) -> None:
        self._arrays = arrays

    def take(self, name: object) -> npt.NDArray[np.float32]:
        array = self._arrays[str(name)]
        if not np.isfinite(array).all():
            raise UnsupportedError("has weights that are not finite")
        return array

    take_weight = take


def read_graph(layers: nn.Module, channels: int, classes: Classes) -> _native.Graph:
    """The graph of a sequence of layers whose input has `channels`. Raises UnsupportedError."""
    arrays: dict[str, npt.NDArray[np.float32]] = {}
    operations = Operations("", arrays)
    for name, layer in layers.named_children():
        with _naming(name, layer):
            _append(operations, layer, classes)
    if operations.elu:
        raise UnsupportedError("ends with an activation")
    try:
        graph = build_graph("operations", channels, operations.ops, _Arrays(arrays))
        graph.seal()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnsupportedError(str(error)) from None
    return graph


class _naming:
    """Says in an error which layer it is about."""

    def __init__(self, name: str, layer: nn.Module) -> None:
        self._what = f"layer {name} ({type(layer).__name__})"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, (ValueError, AttributeError, TypeError)):
            raise UnsupportedError(f"{self._what}: {error}") from None


def _append(operations: Operations, layer: nn.Module, classes: Classes) -> None:
    if type(layer) is nn.ELU:
        if layer.alpha != 1.0:
            raise UnsupportedError(f"expected alpha 1, found {layer.alpha}")
        operations.elu = True
    elif type(layer) is classes.conv:
        operations.conv(_conv(layer), operations.value)
    elif type(layer) is classes.transposed:
        operations.conv_transpose(_transposed(layer))
    elif type(layer) is classes.lstm:
        operations.lstm(_lstm(layer))
    elif type(layer) is classes.residual:
        _append_residual(operations, layer, classes)
    else:
        raise UnsupportedError("expected a convolution, a residual unit, an LSTM or an ELU")


def _append_residual(operations: Operations, unit: Any, classes: Classes) -> None:
    block = list(unit.block.children())
    expected = [nn.ELU, classes.conv, nn.ELU, classes.conv]
    if [type(layer) for layer in block] != expected or {block[0].alpha, block[2].alpha} != {1.0}:
        found = ", ".join(map(str, block))
        raise UnsupportedError(f"expected ELU, convolution, ELU, convolution, found {found}")
    skip = unit.shortcut
    if type(skip) is not classes.conv and type(skip) is not nn.Identity:
        raise UnsupportedError(f"expected a convolution or nothing as its skip, found {skip}")
    shortcut = None if isinstance(skip, nn.Identity) else _conv(skip)
    operations.residual(_conv(block[1]), _conv(block[3]), shortcut)


def _conv(layer: Any) -> _Conv:
    conv, norm = _inner(layer, "conv", nn.Conv1d)
    if layer.pad_mode not in PAD_MODES:
        raise UnsupportedError(f"pad_mode: expected reflect or constant, found {layer.pad_mode!r}")
    if conv.padding != (0,):
        raise UnsupportedError(f"padding: expected (0,), found {conv.padding}")
    return _Conv(conv, norm, bool(layer.causal), layer.pad_mode)


def _transposed(layer: Any) -> _Transposed:
    kind = "convtr" if hasattr(layer, "convtr") else "conv"
    conv, norm = _inner(layer, kind, nn.ConvTranspose1d)
    if conv.kernel_size[0] != 2 * conv.stride[0] or conv.padding != (0,):
        raise UnsupportedError("expected a kernel of twice the stride without padding")
    if conv.output_padding != (0,) or conv.dilation != (1,):
        raise UnsupportedError("expected no output padding and no dilation")
    if layer.causal and layer.trim_right_ratio != 1.0:
        raise UnsupportedError(f"trim_right_ratio: expected 1, found {layer.trim_right_ratio}")
    return _Transposed(conv, norm, bool(layer.causal))


def _inner(layer: Any, kind: str, expected: type[Conv]) -> tuple[Conv, nn.GroupNorm | None]:
    """The convolution in its wrappers, and the norm behind it."""
    wrapper = getattr(layer, kind)
    if not isinstance(wrapper, expected):
        layer, wrapper = wrapper, getattr(wrapper, kind)
    if getattr(layer, "norm_type", "none") not in _NORMS:
        raise UnsupportedError(f"norm: expected one of {_NORMS}, found {layer.norm_type!r}")
    norm = getattr(layer, "norm", None)
    if isinstance(norm, nn.Identity):
        norm = None
    if norm is not None and not (isinstance(norm, nn.GroupNorm) and norm.num_groups == 1):
        raise UnsupportedError(f"norm: expected a group norm with one group, found {norm}")
    # A parametrised convolution is of a class made for it, below the original.
    if not isinstance(wrapper, expected) or wrapper.groups != 1 or wrapper.bias is None:
        raise UnsupportedError(f"expected {expected.__name__}, one group, a bias; found {wrapper}")
    return wrapper, norm


def _lstm(layer: Any) -> nn.LSTM:
    lstm: nn.LSTM = layer.lstm
    plain = type(lstm) is nn.LSTM and lstm.input_size == lstm.hidden_size and lstm.bias
    if not plain or lstm.bidirectional or lstm.proj_size or lstm.batch_first:
        raise UnsupportedError("expected an LSTM of one width and one direction, with biases")
    if not getattr(layer, "skip", True):
        raise UnsupportedError("expected a skip around the LSTM, found none")
    return lstm
