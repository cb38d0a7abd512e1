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
from encodec_fast.integrations.modules import AcceleratedCodebooks, AcceleratedNetwork, Kinds, Stand
from encodec_fast.integrations.seanet import Classes, UnsupportedError

CODEC = EncodecModel
# The package has a function of this name.
compress: Any = importlib.import_module("encodec.compress")


# encodec has no types, which mypy --strict reports for each subclass.
class AcceleratedEncoder(AcceleratedNetwork, SEANetEncoder):  # type: ignore[misc]
    """SEANetEncoder on the native core."""


class AcceleratedDecoder(AcceleratedNetwork, SEANetDecoder):  # type: ignore[misc]
    """SEANetDecoder on the native core."""


class AcceleratedQuantizer(AcceleratedCodebooks, ResidualVectorQuantization):  # type: ignore[misc]
    """ResidualVectorQuantization on the native core."""

    def encode(self, x: Tensor, n_q: int | None = None) -> Tensor:
        """As ResidualVectorQuantization.encode."""
        return self.search(x, n_q or len(self.layers))

    def decode(self, q_indices: Tensor) -> Tensor:
        """As ResidualVectorQuantization.decode."""
        return self.look_up(q_indices)


# Models whose `compress` codes with our coder: it is the package's, for all of them or none.
_attached: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_ORIGINALS = {
    name: getattr(compress, name)
    for name in ("ArithmeticCoder", "ArithmeticDecoder", "build_stable_quantized_cdf")
}


class NativeCoder:
    """encodec's ArithmeticCoder as `compress` uses it: the same bits (spec 4.2)."""

    total_range_bits = 24

    def __init__(self, fo: IO[bytes]) -> None:
        self._file = fo
        self._coder = _native.ArithmeticEncoder()

    def push(self, symbol: int, quantized_cdf: Tensor) -> None:
        """Code a symbol under the sums int64 [entries]."""
        self._coder.push(np.array([symbol], np.uint16), quantized_cdf.numpy()[None])

    def flush(self) -> None:
        """Write what was coded."""
        self._file.write(self._coder.flush())


class NativeDecoder:
    """encodec's ArithmeticDecoder as `decompress` uses it, on a file that can seek."""

    total_range_bits = 24

    def __init__(self, fo: IO[bytes]) -> None:
        self._file = fo
        self._start = fo.tell()
        self._coder = _native.ArithmeticDecoder(fo.read())

    def pull(self, quantized_cdf: Tensor) -> int | None:
        """The next symbol; None at the end of the data. The file stands behind what was read, as
        the original leaves it."""
        symbols = self._coder.pull(quantized_cdf.numpy()[None], 1)
        self._file.seek(self._start + self._coder.position)
        return int(symbols[0]) if len(symbols) else None


def open_decoder(fo: IO[bytes]) -> Any:
    """A decoder for a file: the original where it cannot seek."""
    return NativeDecoder(fo) if fo.seekable() else _ORIGINALS["ArithmeticDecoder"](fo)


def native_cdf(pdf: Tensor, total_range_bits: int, check: bool = True) -> Tensor:
    """encodec's build_stable_quantized_cdf as `compress` uses it (spec 4.1): int64 [entries]."""
    return torch.from_numpy(_native.cdf_reference(pdf.contiguous().numpy()[None]))[0]


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


def stands(model: Any, threads: int | None) -> list[Stand]:
    """What can stand in for the modules of an EncodecModel. Raises UnsupportedError."""
    encoder = (model.encoder, model.encoder.channels)
    decoder = (model.decoder, model.decoder.dimension)
    return _KINDS.stands(encoder, decoder, model.quantizer.vq, threads)
