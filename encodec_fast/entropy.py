"""The entropy coders on their own: probabilities in, bytes out, and back, on numpy arrays.

Two coders. `RangeEncoder` and `RangeDecoder` are those of version 1: fast, and the same bytes on
every machine that has the same float32 probabilities. `ArithmeticEncoder` and `ArithmeticDecoder`
are the reference's, byte for byte, for version 0 files. Both take, for every symbol, a distribution
over n = 2..65536 symbols; docs/entropy.md has the rules.

    encoder = RangeEncoder()
    encoder.push(symbols, probabilities)          # [T], float32 [T, n]
    data = encoder.flush()
    symbols = RangeDecoder(data).pull(probabilities)

An object belongs to one thread at a time.
"""

from __future__ import annotations

import math
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from encodec_fast import _native
from encodec_fast._native import CodeArray

# A cumulative distribution of one of the two coders.
_Sums = TypeVar("_Sums", np.uint32, np.int64)


def cdf_from_probabilities(
    probabilities: Any, version: int = 1
) -> npt.NDArray[np.uint32] | npt.NDArray[np.int64]:
    """Integer intervals of distributions, as both sides of a coder must have them.

    probabilities: float32 [..., n], each in 0..1, summing to 1 (to rounding). version 1: uint32
    [..., n + 1], where symbol i owns cdf[i]..cdf[i + 1] of 2^24, from 0. version 0: int64
    [..., n], where it owns cdf[i - 1]..cdf[i] (0 before the first); as the reference's rule rounds,
    the last one may end beyond 2^24. Raises ValueError for other arrays, for values that are no
    distribution, and for another version.
    """
    if version not in (0, 1):
        raise ValueError(f"version: expected 0 or 1, found {version!r}")
    array = np.asarray(probabilities)
    if array.ndim < 1 or not array.shape[-1]:
        raise ValueError(f"probabilities: expected shape [..., n], found {list(array.shape)}")
    rows = _rows(array.reshape(math.prod(array.shape[:-1]), array.shape[-1]))
    cdf = _native.cdf_starts(rows) if version == 1 else _native.cdf_reference(rows)
    return cdf.reshape(*array.shape[:-1], cdf.shape[1])


class _Model(Generic[_Sums]):
    """What a coder is told of its symbols: a distribution for each, or one for all.

    Exactly one of `probabilities` float32 [T, n] and `sums` [T or 1, n'] is there.
    """

    def __init__(self, value: Any, sums: type[_Sums]) -> None:
        array = np.asarray(value)
        if array.ndim not in (1, 2) or not array.shape[-1]:
            raise ValueError(
                "model: expected distributions of shape [n] or [T, n],"
                f" found shape {list(array.shape)}"
            )
        self.shared = array.ndim == 1
        rows = array[None] if self.shared else array
        self.probabilities: npt.NDArray[np.float32] | None = None
        self.sums: npt.NDArray[_Sums] | None = None
        if array.dtype == np.float32:
            self.probabilities = _rows(rows)
        elif array.dtype == sums:
            self.sums = np.ascontiguousarray(rows)
        else:
            raise ValueError(
                f"model: expected float32 probabilities or {sums.__name__} sums of"
                f" cdf_from_probabilities, found {array.dtype}"
            )
        self._rows = len(rows)

    def count(self, count: int | None) -> int:
        """How many symbols to decode, given what the caller asked for."""
        if count is None:
            if self.shared:
                raise ValueError("count: expected a number, as the distribution does not tell it")
            return self._rows
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 0:
            raise ValueError(f"count: expected an integer of at least 0, found {count!r}")
        if count >= 1 << 62:
            raise ValueError(f"count: expected fewer than 2^62 symbols, found {count}")
        if not self.shared and count != self._rows:
            raise ValueError(f"count: expected one per distribution, {self._rows}, found {count}")
        return int(count)

    def symbols(self, value: Any) -> CodeArray:
        """The symbols to encode, uint16 [T]."""
        array = np.asarray(value)
        array = array[None] if array.ndim == 0 else array
        symbols = _native.as_codes("symbols", array, (None,), 1 << 16)
        if not self.shared and len(symbols) != self._rows:
            raise ValueError(
                f"symbols: expected one per distribution, {self._rows}, found {len(symbols)}"
            )
        return symbols


class RangeEncoder:
    """Symbols to bytes with the range coder of version 1."""

    def __init__(self) -> None:
        self._coder = _native.RangeEncoder()

    def push(self, symbols: Any, model: Any) -> None:
        """Encodes symbols, integers [T], each in 0..n - 1 (or one integer).

        model: a distribution per symbol [T, n], or one for all [n]; float32 probabilities, or the
        uint32 [..., n + 1] of `cdf_from_probabilities`, which for one distribution and many symbols
        saves time. Raises ValueError for other arrays and values, and then encodes nothing.
        """
        given = _Model(model, np.uint32)
        array = given.symbols(symbols)
        starts = _starts(given)
        if starts is not None:
            self._coder.push_starts(array, starts)
        else:
            assert given.probabilities is not None
            self._coder.push_probabilities(array, given.probabilities)

    def flush(self) -> bytes:
        """The bytes of all symbols since the last flush; the next ones begin anew.

        Their number is not among them: the decoder has to be given exactly these bytes.
        """
        data: bytes = self._coder.flush()
        return data


class RangeDecoder:
    """The inverse of RangeEncoder, over the bytes of one flush."""

    def __init__(self, data: bytes) -> None:
        self._coder = _native.RangeDecoder(_checked(data))

    @property
    def complete(self) -> bool:
        """Whether the data is as long as an encoder makes it of the symbols so far. Data for which
        it is False after the last symbol is damaged."""
        return bool(self._coder.complete)

    def pull(self, model: Any, count: int | None = None) -> CodeArray:
        """The next symbols, uint16 [T].

        model: as in `RangeEncoder.push`, equal to the encoder's; count: T, needed with one
        distribution for all. Raises ValueError for other arrays and values, and for data that is
        found to be damaged or truncated; no more symbols can follow then.
        """
        given = _Model(model, np.uint32)
        total = given.count(count)
        starts = _starts(given)
        symbols: CodeArray
        if starts is not None:
            symbols = self._coder.pull_starts(starts, total)
        else:
            assert given.probabilities is not None
            symbols = self._coder.pull_probabilities(given.probabilities)
        return symbols


class ArithmeticEncoder:
    """Symbols to bytes with the reference's arithmetic coder, byte for byte."""

    def __init__(self) -> None:
        self._coder = _native.ArithmeticEncoder()

    def push(self, symbols: Any, model: Any) -> None:
        """Encodes symbols, as `RangeEncoder.push` does.

        model: float32 probabilities, or the int64 [..., n] of `cdf_from_probabilities(p, 0)`.
        Raises ValueError, and then encodes nothing, also for a last symbol whose interval ends
        beyond 2^24: with that the reference fails, or writes what it cannot read.
        """
        given = _Model(model, np.int64)
        self._coder.push(given.symbols(symbols), _reference_sums(given))

    def flush(self) -> bytes:
        """The bytes of all symbols since the last flush; the next ones begin anew."""
        data: bytes = self._coder.flush()
        return data


class ArithmeticDecoder:
    """The inverse of ArithmeticEncoder; other data may follow in the same bytes."""

    def __init__(self, data: bytes) -> None:
        self._coder = _native.ArithmeticDecoder(_checked(data))

    @property
    def position(self) -> int:
        """Bytes read so far. After the last symbol: those that the encoder made."""
        return int(self._coder.position)

    def pull(self, model: Any, count: int | None = None) -> CodeArray:
        """The next symbols, uint16 [T]; arguments as `RangeDecoder.pull`.

        Raises ValueError for damaged data and EOFError for truncated data.
        """
        given = _Model(model, np.int64)
        total = given.count(count)
        symbols: CodeArray = self._coder.pull(_reference_sums(given), total)
        if len(symbols) != total:
            raise EOFError(f"data: truncated ({len(symbols)} of {total} symbols)")
        return symbols


def _starts(model: _Model[np.uint32]) -> npt.NDArray[np.uint32] | None:
    """Sums of intervals; None where each symbol has probabilities: then only its own are needed."""
    if model.probabilities is not None and model.shared:
        return _native.cdf_starts(model.probabilities)
    return model.sums


def _reference_sums(model: _Model[np.int64]) -> npt.NDArray[np.int64]:
    if model.probabilities is not None:
        return _native.cdf_reference(model.probabilities)
    assert model.sums is not None
    return model.sums


def _rows(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    if array.dtype != np.float32:  # rounding others here would hide what the coder really uses
        raise ValueError(f"probabilities: expected float32, found {array.dtype}")
    return np.ascontiguousarray(array)


def _checked(data: object) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise ValueError(f"data: expected bytes, found {type(data).__name__}")
    return bytes(data)
