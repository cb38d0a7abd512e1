"""Codes of a segment of an `.ecdc` file, version 0, to bytes and back: packed bits, or whatever a
language model makes of them (models/lm_coder.py, which needs torch)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO, Protocol

import numpy as np

from encodec_fast import _native
from encodec_fast._native import CodeArray
from encodec_fast.program import Header

# The reference's coder spends up to 25 bits on a symbol, and keeps 62 until the end.
_MAX_CODED_BYTES = 4
_MAX_PENDING_BYTES = 8


class SegmentEncoder(Protocol):
    """One segment's codes to bytes."""

    def push(self, codes: CodeArray) -> bytes:
        """The bytes completed by these codes, uint16 [n_q, frames]."""

    def flush(self) -> bytes:
        """The segment's other bytes."""


class SegmentDecoder(Protocol):
    """The bytes of one segment, and what follows, to codes."""

    @property
    def position(self) -> int:
        """Bytes read so far: at the segment's end, its length."""

    def pull(self, frames: int) -> CodeArray:
        """The next codes, uint16 [n_q, frames]. Raises ValueError for damaged data and EOFError for
        truncated data."""


class SegmentCoder(Protocol):
    """A language model that codes the segments of one model; may serve many threads at once."""

    def encoder(self, n_q: int) -> SegmentEncoder: ...
    def decoder(self, n_q: int, data: bytes) -> SegmentDecoder: ...


def load_segment_coder(source: str | os.PathLike[str], header: Header) -> SegmentCoder:
    """Meta's language model, a file or a name, for the model of a program. Raises ValueError where
    it belongs to another model, and without encodec-fast[torch], OSError for an unreadable file."""
    try:
        from encodec_fast.models.lm_coder import load_lm_coder
    except ImportError as error:
        raise ValueError(
            f"lm_checkpoint: reading one needs `pip install 'encodec-fast[torch]'` ({error})"
        ) from None
    return load_lm_coder(source, header)


def segment_coder(loaded: SegmentCoder | None, entropy: str) -> SegmentCoder | None:
    """What an entropy mode of version 0 needs of the language model that is there; None: packed
    bits. Raises ValueError for a mode that it lacks."""
    if entropy == "none":
        return None
    if entropy != "lm":
        raise ValueError(f"entropy: version 0 has 'none' and 'lm', found {entropy!r}")
    if loaded is None:
        raise ValueError(
            "entropy: in version 0, 'lm' needs Codec.load(lm_checkpoint=...) or --lm-checkpoint"
        )
    return loaded


class PackedEncoder:
    """Codes of a fixed number of bits."""

    def __init__(self, bits: int) -> None:
        self._packer = _native.BitPacker(bits)

    def push(self, codes: CodeArray) -> bytes:
        data: bytes = self._packer.push(np.ascontiguousarray(codes.T).ravel())
        return data

    def flush(self) -> bytes:
        data: bytes = self._packer.flush()
        return data


def packed_codes(
    stream: IO[bytes], n_q: int, frames: int, step: int, bits: int, name: str
) -> Iterator[CodeArray]:
    """A segment of packed codes, up to `step` frames at a time (whole bytes of them, unless the
    segment ends). Raises EOFError for a stream, called `name`, that ends before."""
    for first in range(0, frames, step):
        count = min(step, frames - first)
        data = read_exactly(stream, -(-count * n_q * bits // 8), name)
        # Every part starts on a byte; what padding bits add at the end is cut off.
        values = _native.BitUnpacker(bits).push(data)[: count * n_q]
        yield np.ascontiguousarray(values.reshape(count, n_q).T)


def coded_codes(
    stream: IO[bytes], n_q: int, frames: int, step: int, coder: SegmentCoder, name: str
) -> Iterator[CodeArray]:
    """A segment of coded codes, as `packed_codes`; the stream has to be one that can be sought.
    Raises ValueError, too, for damaged codes."""
    begin = stream.tell()
    # Nothing but decoding tells how long it is: more is read and given back.
    size = frames * n_q * _MAX_CODED_BYTES + _MAX_PENDING_BYTES
    data = stream.read(min(size, 1 << 62))
    decoder = coder.decoder(n_q, data)
    for first in range(0, frames, step):
        try:
            codes = decoder.pull(min(step, frames - first))
        except EOFError:
            raise EOFError(f"{name}: truncated, or of another language model") from None
        except ValueError as error:
            reason = str(error).removeprefix("data: ")
            raise ValueError(f"{name}: of another language model, or {reason}") from None
        yield codes
    stream.seek(begin + decoder.position)


def read_exactly(stream: IO[bytes], size: int, name: str) -> bytes:
    """Raises EOFError for a stream, called `name`, that ends before."""
    data = b""
    while len(data) < size:
        more = stream.read(size - len(data))
        if not more:
            raise EOFError(f"{name}: truncated ({size - len(data)} more bytes expected)")
        data += more
    return data
