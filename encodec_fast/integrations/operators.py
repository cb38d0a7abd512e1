"""PyTorch operators on the native core, with what torch.compile needs to look through a caller.

`rvq_encode` and `rvq_decode` are for anyone's residual vector quantiser. The others serve parts of
accelerated models, which they find by a number.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from encodec_fast import _native
from encodec_fast.integrations.on_device import DeviceCodebooks, DeviceNetwork
from encodec_fast.integrations.parts import MODULES

# Packed codebooks of rvq_encode and rvq_decode: as many models as one process is likely to use.
_PACKED_CODEBOOKS = 4

# Of the operators that serve accelerated models.
_DEVICES = ("cpu", "cuda")

_Packed = tuple[npt.NDArray[np.float32], _native.Codebooks]
_packed: OrderedDict[tuple[int, tuple[int, ...]], _Packed] = OrderedDict()
_packed_lock = threading.Lock()


@torch.library.custom_op("encodec_fast::rvq_encode", mutates_args=(), device_types="cpu")
def rvq_encode(latents: Tensor, codebooks: Tensor) -> Tensor:
    """Codes of latents under all codebooks, residually (paper 3.2).

    latents: float32 [..., dimension]; codebooks: float32 [n_q, size, dimension], finite. Returns
    int64 [n_q, ...]: per codebook the index of the entry nearest to what the codebooks before have
    left, ties to the lowest. Raises ValueError for other shapes and dtypes.
    """
    _check_codebooks(codebooks)
    dimension = codebooks.shape[2]
    if latents.dtype != torch.float32 or latents.dim() < 1 or latents.shape[-1] != dimension:
        raise ValueError(
            f"latents: expected float32 [..., {dimension}], found {latents.dtype} "
            f"{list(latents.shape)}"
        )
    rows = latents.detach().contiguous().numpy().reshape(-1, dimension)
    codes = _pack(codebooks).encode(rows, len(codebooks))
    return torch.from_numpy(codes.astype(np.int64)).reshape(len(codebooks), *latents.shape[:-1])


@rvq_encode.register_fake
def _(latents: Tensor, codebooks: Tensor) -> Tensor:
    return latents.new_empty(codebooks.shape[0], *latents.shape[:-1], dtype=torch.int64)


@torch.library.custom_op("encodec_fast::rvq_decode", mutates_args=(), device_types="cpu")
def rvq_decode(codes: Tensor, codebooks: Tensor) -> Tensor:
    """The latents that codes stand for: the sum of their entries.

    codes: integers [1..n_q, ...] below `size`; codebooks: float32 [n_q, size, dimension], finite.
    Returns float32 [..., dimension]. Raises ValueError for other shapes, dtypes and values.
    """
    _check_codebooks(codebooks)
    whole = not (codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool)
    if not whole or codes.dim() < 1 or not 1 <= len(codes) <= len(codebooks):
        raise ValueError(
            f"codes: expected integers [1..{len(codebooks)}, ...], found {codes.dtype} "
            f"{list(codes.shape)}"
        )
    flat = codes.detach().reshape(len(codes), -1).numpy()
    checked = _native.as_codes("codes", flat, (None, None), codebooks.shape[1])
    latents = torch.from_numpy(_pack(codebooks).decode(checked))
    return latents.reshape(*codes.shape[1:], codebooks.shape[2])


@rvq_decode.register_fake
def _(codes: Tensor, codebooks: Tensor) -> Tensor:
    return codebooks.new_empty(*codes.shape[1:], codebooks.shape[2])


def _check_codebooks(codebooks: Tensor) -> None:
    if codebooks.dtype != torch.float32 or codebooks.dim() != 3 or codebooks.numel() == 0:
        raise ValueError(
            f"codebooks: expected float32 [n_q, size, dimension], found {codebooks.dtype} "
            f"{list(codebooks.shape)}"
        )


def _pack(codebooks: Tensor) -> _native.Codebooks:
    """Packing takes longer than a small search, so it is kept; codebooks are often written through
    `.data`, which PyTorch does not count, so what they hold is compared."""
    entries = codebooks.detach().contiguous().numpy()
    key = (codebooks.data_ptr(), tuple(codebooks.shape))
    with _packed_lock:
        found = _packed.get(key)
        # As integers: NaN equals nothing.
        if found and np.array_equal(found[0].view(np.int32), entries.view(np.int32)):
            _packed.move_to_end(key)
            return found[1]
    if not np.isfinite(entries).all():
        raise ValueError("codebooks: expected finite entries, found NaN or infinity")
    packed = _native.Codebooks(entries)
    with _packed_lock:
        _packed[key] = entries.copy(), packed
        _packed.move_to_end(key)
        while len(_packed) > _PACKED_CODEBOOKS:
            _packed.popitem(last=False)
    return packed


def _own(out: Tensor) -> Tensor:
    """As operators promise: memory of its own, laid out as the fake result."""
    return out.clone(memory_format=torch.contiguous_format)


@torch.library.custom_op("encodec_fast::run_network", mutates_args=(), device_types=_DEVICES)
def run_network(x: Tensor, handle: int, channels: int, up: int, down: int) -> Tensor:
    """[batch, in channels, rows] through the encoder or decoder `handle`, to [batch, channels,
    rows * up / down, rounded up]."""
    module: Any = MODULES[handle]
    network = module.native_part.native(module, x.device)
    if network is None:
        return _own(module.original_forward(x.detach()))
    if isinstance(network, DeviceNetwork):
        return network(x.detach())
    return torch.from_numpy(network(x.detach().contiguous().numpy(), module.native_part.threads))


@run_network.register_fake
def _(x: Tensor, handle: int, channels: int, up: int, down: int) -> Tensor:
    return x.new_empty(x.shape[0], channels, (x.shape[2] * up + down - 1) // down)


@torch.library.custom_op("encodec_fast::search_codebooks", mutates_args=(), device_types=_DEVICES)
def search_codebooks(x: Tensor, handle: int, n_q: int) -> Tensor:
    """Latents [batch, dimension, frames] to codes int64 [n_q, batch, frames] of quantiser
    `handle`."""
    module: Any = MODULES[handle]
    codebooks = module.native_part.native(module, x.device)
    if codebooks is None:
        return _own(module.original_encode(x.detach(), n_q))
    if isinstance(codebooks, DeviceCodebooks):
        return codebooks.encode(x.detach(), n_q)
    rows = x.detach().transpose(1, 2).contiguous().numpy().reshape(-1, x.shape[1])
    codes = codebooks.encode(rows, n_q).astype(np.int64)
    return torch.from_numpy(codes).reshape(n_q, x.shape[0], x.shape[2])


@search_codebooks.register_fake
def _(x: Tensor, handle: int, n_q: int) -> Tensor:
    return x.new_empty(n_q, x.shape[0], x.shape[2], dtype=torch.int64)


@torch.library.custom_op("encodec_fast::look_up_codes", mutates_args=(), device_types=_DEVICES)
def look_up_codes(codes: Tensor, handle: int, dimension: int) -> Tensor:
    """Codes int64 [n_q, batch, frames] to latents [batch, dimension, frames] of quantiser
    `handle`."""
    module: Any = MODULES[handle]
    codebooks = module.native_part.native(module, codes.device)
    if codebooks is None:
        return _own(module.original_decode(codes))
    if isinstance(codebooks, DeviceCodebooks):
        return codebooks.decode(codes)
    _, batch, frames = codes.shape
    flat = codes.reshape(len(codes), -1).numpy()
    try:
        checked = _native.as_codes("codes", flat, (None, None), codebooks.size)
    except ValueError:  # in the package's own words
        return _own(module.original_decode(codes))
    latents = torch.from_numpy(codebooks.decode(checked))
    return latents.reshape(batch, frames, dimension).transpose(1, 2).contiguous()


@look_up_codes.register_fake
def _(codes: Tensor, handle: int, dimension: int) -> Tensor:
    _, batch, frames = codes.shape
    return codes.new_empty(batch, dimension, frames, dtype=torch.float32)
