"""The reference, the PyPI package `encodec`: its EncodecModel, and the coder of its compress()."""

from __future__ import annotations

import importlib
import weakref
from typing import IO, Any

import numpy as np
import torch
from encodec import EncodecModel
from encodec.modules import SLSTM, SConv1d, SConvTranspose1d
from encodec.modules.seanet import SEANetDecoder, SEANetEncoder, SEANetResnetBlock
from encodec.quantization.core_vq import (
    EuclideanCodebook,
    ResidualVectorQuantization,
    VectorQuantization,
)
from torch import Tensor, nn

from encodec_fast import _native
from encodec_fast.integrations.modules import AcceleratedNetwork, AcceleratedVq, Kinds
from encodec_fast.integrations.seanet import Classes, UnsupportedError

CODEC = EncodecModel
# The package has a function of this name.
compress: Any = importlib.import_module("encodec.compress")


class AcceleratedEncoder(AcceleratedNetwork, SEANetEncoder):
    """SEANetEncoder on the native core."""


class AcceleratedDecoder(AcceleratedNetwork, SEANetDecoder):
    """SEANetDecoder on the native core."""


class AcceleratedQuantizer(AcceleratedVq, ResidualVectorQuantization):
    """ResidualVectorQuantization on the native core."""


_RANGE_BITS = 24  # of the coder in every file (spec 4.1)

# Models whose `compress` codes with our coder: it is the package's, for all of them or none.
_attached: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_ORIGINALS = {
    name: getattr(compress, name)
    for name in ("ArithmeticCoder", "ArithmeticDecoder", "build_stable_quantized_cdf")
}


# Symbols that are coded at a time: one call of ours for each would cost as much as the coding.
_BATCH = 1024


def native_cdf(
    pdf: Tensor,
    total_range_bits: int,
    roundoff: float = 1e-8,
    min_range: int = 2,
    check: bool = True,
) -> Tensor:
    """encodec's build_stable_quantized_cdf (spec 4.1): sums int64 [entries] of a distribution."""
    usual = (total_range_bits, roundoff, min_range) == (_RANGE_BITS, 1e-8, 2) and not check
    if not usual or pdf.dtype != torch.float32 or pdf.device.type != "cpu" or pdf.dim() != 1:
        original = _ORIGINALS["build_stable_quantized_cdf"]
        sums: Tensor = original(pdf, total_range_bits, roundoff, min_range, check)
        return sums
    return torch.from_numpy(_native.cdf_reference(pdf.detach().contiguous().numpy()[None]))[0]


class NativeCoder:
    """encodec's ArithmeticCoder as `compress` uses it: the same bits (spec 4.2)."""

    total_range_bits = _RANGE_BITS

    def __init__(self, fo: IO[bytes]) -> None:
        self._file = fo
        self._coder = _native.ArithmeticEncoder()
        self._symbols: list[int] = []
        self._cdfs: list[Tensor] = []

    def push(self, symbol: int, quantized_cdf: Tensor) -> None:
        """Code a symbol under the sums int64 [entries]."""
        self._symbols.append(symbol)
        self._cdfs.append(quantized_cdf)
        if len(self._symbols) == _BATCH:
            self._code()

    def _code(self) -> None:
        if self._symbols:
            symbols = np.array(self._symbols, np.uint16)
            self._coder.push(symbols, torch.stack(self._cdfs).cpu().numpy())
        self._symbols, self._cdfs = [], []

    def flush(self) -> None:
        """Write what was coded."""
        self._code()
        self._file.write(self._coder.flush())


class NativeDecoder:
    """encodec's ArithmeticDecoder as `decompress` uses it, on a file that can seek."""

    total_range_bits = _RANGE_BITS

    def __init__(self, fo: IO[bytes]) -> None:
        self._file = fo
        self._start = fo.tell()
        # For every segment of a file, which is little beside the language model's time.
        self._coder = _native.ArithmeticDecoder(fo.read())

    def pull(self, quantized_cdf: Tensor) -> int | None:
        """The next symbol; None at the end of the data. The file stands behind what was read, as
        the original leaves it."""
        symbols = self._coder.pull(quantized_cdf.cpu().numpy()[None], 1)
        self._file.seek(self._start + self._coder.position)
        return int(symbols[0]) if len(symbols) else None


def open_decoder(fo: Any) -> Any:
    """A decoder for a file: the original where it cannot seek."""
    seekable = getattr(fo, "seekable", None)
    if seekable is not None and seekable():
        return NativeDecoder(fo)
    return _ORIGINALS["ArithmeticDecoder"](fo)


def attach(model: Any, exact_lengths: bool) -> None:
    """Let the package code with our coder. Raises UnsupportedError for exact_lengths."""
    if exact_lengths:
        raise UnsupportedError("exact_lengths: encodec has no padding masks")
    _attached.add(model)
    compress.ArithmeticCoder = NativeCoder
    compress.ArithmeticDecoder = open_decoder
    compress.build_stable_quantized_cdf = native_cdf


def detach(model: Any) -> None:
    """Give the package its coder back with the last model."""
    _attached.discard(model)
    if not _attached:
        for name, original in _ORIGINALS.items():
            setattr(compress, name, original)


_KINDS = Kinds(
    Classes(SConv1d, SConvTranspose1d, SEANetResnetBlock, SLSTM),
    "model",
    AcceleratedEncoder,
    AcceleratedDecoder,
    AcceleratedQuantizer,
    (nn.ModuleList, VectorQuantization, EuclideanCodebook, nn.Identity),
)


stands = _KINDS.reference_stands
