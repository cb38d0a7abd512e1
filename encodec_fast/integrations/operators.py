"""PyTorch operators on the native core, with what torch.compile needs to look through a caller.

`rvq_encode` and `rvq_decode` are for anyone's residual vector quantiser. The others serve parts of
accelerated models, which they find by a number.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from encodec_fast import _native
from encodec_fast.integrations.on_device import DeviceCodebooks, DeviceNetwork
from encodec_fast.integrations.parts import DEVICES, MODULES

# Packed codebooks of rvq_encode and rvq_decode: as many models as one process is likely to use.
_PACKED_CODEBOOKS = 4

_Codebooks = _native.Codebooks | DeviceCodebooks
_packed: OrderedDict[tuple[Any, ...], tuple[Tensor, _Codebooks]] = OrderedDict()
_packed_lock = threading.Lock()


@torch.library.custom_op("encodec_fast::rvq_encode", mutates_args=(), device_types=DEVICES)
def rvq_encode(latents: Tensor, codebooks: Tensor) -> Tensor:
    """Codes of latents under all codebooks, residually (paper 3.2).

    latents: float32 [..., dimension]; codebooks: float32 [n_q, size, dimension], finite; both on
    the CPU or on one NVIDIA GPU. Returns int64 [n_q, ...]: per codebook the index of the entry
    nearest to what the codebooks before have left, ties to the lowest. Raises ValueError for other
    shapes, dtypes and devices, OSError where a GPU fails.
    """
    _check_codebooks(codebooks, latents)
    dimension = codebooks.shape[2]
    if latents.dtype != torch.float32 or latents.dim() < 1 or latents.shape[-1] != dimension:
        raise ValueError(
            f"latents: expected float32 [..., {dimension}], found {latents.dtype} "
            f"{list(latents.shape)}"
        )
    rows = latents.detach().reshape(-1, dimension).contiguous()
    codes = _encode(_pack(codebooks), rows, len(codebooks))
    return codes.reshape(len(codebooks), *latents.shape[:-1])


@rvq_encode.register_fake
def _(latents: Tensor, codebooks: Tensor) -> Tensor:
    return latents.new_empty(codebooks.shape[0], *latents.shape[:-1], dtype=torch.int64)


@torch.library.custom_op("encodec_fast::rvq_decode", mutates_args=(), device_types=DEVICES)
def rvq_decode(codes: Tensor, codebooks: Tensor) -> Tensor:
    """The latents that codes stand for: the sum of their entries.

    codes: integers [1..n_q, ...] below `size`; codebooks: float32 [n_q, size, dimension], finite.
    Returns float32 [..., dimension]. Devices as rvq_encode. Raises ValueError for other shapes,
    dtypes, devices and values, OSError where a GPU fails.
    """
    _check_codebooks(codebooks, codes)
    whole = not (codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool)
    if not whole or codes.dim() < 1 or not 1 <= len(codes) <= len(codebooks):
        raise ValueError(
            f"codes: expected integers [1..{len(codebooks)}, ...], found {codes.dtype} "
            f"{list(codes.shape)}"
        )
    latents = _decode(_pack(codebooks), codes.detach().reshape(len(codes), -1))
    return latents.reshape(*codes.shape[1:], codebooks.shape[2])


@rvq_decode.register_fake
def _(codes: Tensor, codebooks: Tensor) -> Tensor:
    return codebooks.new_empty(*codes.shape[1:], codebooks.shape[2])


def _encode(codebooks: _Codebooks, rows: Tensor, n_q: int) -> Tensor:
    """Codes int64 [n_q, rows] of contiguous latents [rows, dimension]."""
    if isinstance(codebooks, DeviceCodebooks):
        return codebooks.encode(rows, n_q)
    return torch.from_numpy(codebooks.encode(rows.numpy(), n_q).astype(np.int64))


def _decode(codebooks: _Codebooks, codes: Tensor) -> Tensor:
    """Latents [rows, dimension] of integer codes [n_q, rows]. Raises ValueError for others."""
    if isinstance(codebooks, DeviceCodebooks):
        return codebooks.decode(codes.to(torch.int64))
    checked = _native.as_codes("codes", codes.numpy(), (None, None), codebooks.size)
    return torch.from_numpy(codebooks.decode(checked))


def _check_codebooks(codebooks: Tensor, other: Tensor) -> None:
    if other.device != codebooks.device:
        raise ValueError(f"codebooks: expected them on {other.device}, found {codebooks.device}")
    if codebooks.dtype != torch.float32 or codebooks.dim() != 3 or codebooks.numel() == 0:
        raise ValueError(
            f"codebooks: expected float32 [n_q, size, dimension], found {codebooks.dtype} "
            f"{list(codebooks.shape)}"
        )


def _pack(codebooks: Tensor) -> _Codebooks:
    """Packing takes longer than a small search, so it is kept; codebooks are often written through
    `.data`, which PyTorch does not count, so what they hold is compared."""
    entries = codebooks.detach().contiguous()
    key = (codebooks.device, codebooks.data_ptr(), tuple(codebooks.shape))
    with _packed_lock:
        found = _packed.get(key)
        # As integers: NaN equals nothing.
        if found and torch.equal(found[0].view(torch.int32), entries.view(torch.int32)):
            _packed.move_to_end(key)
            return found[1]
    if not bool(torch.isfinite(entries).all()):
        raise ValueError("codebooks: expected finite entries, found NaN or infinity")
    native = _native.Codebooks(entries.cpu().numpy())
    on_cpu = entries.device.type == "cpu"
    packed: _Codebooks = native if on_cpu else DeviceCodebooks(native, entries.device)
    with _packed_lock:
        _packed[key] = entries.clone(), packed
        _packed.move_to_end(key)
        while len(_packed) > _PACKED_CODEBOOKS:
            _packed.popitem(last=False)
    return packed


def _own(out: Tensor) -> Tensor:
    """As operators promise: memory of its own, laid out as the fake result."""
    return out.clone(memory_format=torch.contiguous_format)


@torch.library.custom_op("encodec_fast::run_network", mutates_args=(), device_types=DEVICES)
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


@torch.library.custom_op("encodec_fast::search_codebooks", mutates_args=(), device_types=DEVICES)
def search_codebooks(x: Tensor, handle: int, n_q: int) -> Tensor:
    """Latents [batch, dimension, frames] to codes int64 [n_q, batch, frames] of quantiser
    `handle`."""
    module: Any = MODULES[handle]
    codebooks = module.native_part.native(module, x.device)
    if codebooks is None:
        return _own(module.original_encode(x.detach(), n_q))
    rows = x.detach().transpose(1, 2).reshape(-1, x.shape[1]).contiguous()
    return _encode(codebooks, rows, n_q).reshape(n_q, x.shape[0], x.shape[2])


@search_codebooks.register_fake
def _(x: Tensor, handle: int, n_q: int) -> Tensor:
    return x.new_empty(n_q, x.shape[0], x.shape[2], dtype=torch.int64)


@torch.library.custom_op("encodec_fast::look_up_codes", mutates_args=(), device_types=DEVICES)
def look_up_codes(codes: Tensor, handle: int, dimension: int) -> Tensor:
    """Codes int64 [n_q, batch, frames] to latents [batch, dimension, frames] of quantiser
    `handle`."""
    module: Any = MODULES[handle]
    codebooks = module.native_part.native(module, codes.device)
    if codebooks is None:
        return _own(module.original_decode(codes))
    _, batch, frames = codes.shape
    try:
        latents = _decode(codebooks, codes.reshape(len(codes), -1))
    except ValueError:
        if codes.device.type == "cuda":  # where PyTorch would end the process's use of the GPU
            raise
        return _own(module.original_decode(codes))  # in the package's own words
    return latents.reshape(batch, frames, dimension).transpose(1, 2).contiguous()


@look_up_codes.register_fake
def _(codes: Tensor, handle: int, dimension: int) -> Tensor:
    _, batch, frames = codes.shape
    return codes.new_empty(batch, dimension, frames, dtype=torch.float32)
