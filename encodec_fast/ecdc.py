"""The `.ecdc` container, version 0: byte for byte the one of the reference implementation.

Layout: magic `ECDC`, version byte 0, big-endian uint32 length of a JSON object, the object (`m`
model name, `al` audio length in samples per channel, `nc` number of codebooks, `lm` entropy coding
with a language model), then the segments. A segment is its scale as a big-endian float32 (only
models that normalise), then the codes, frame by frame and codebook by codebook within a frame,
packed lowest bit first (or coded with a language model: segment_codes.py) and padded to a whole
byte at the segment's end. Nothing else is stored: the number of frames follows from `al` and the
model.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

import numpy as np

from encodec_fast.segment_codes import (
    PackedEncoder,
    SegmentCoder,
    SegmentEncoder,
    coded_codes,
    packed_codes,
    read_exactly,
)
from encodec_fast.segments import Piece

SUFFIX = ".ecdc"
MAGIC = b"ECDC"
_VERSION = 0
PREFIX = struct.Struct(">4sBI")  # magic, version, bytes of metadata
_SCALE = struct.Struct(">f")
_MAX_SCALE = float(np.finfo(np.float32).max)
# The reference writes about 60 bytes. A file that promises more than this is no such file.
_MAX_JSON = 1 << 16
# Frames per piece of an unsegmented stream; a multiple of 8, so that every piece but the last one
# fills whole bytes, whatever the number of codebooks and bits.
_FRAMES_PER_PIECE = 600


class UnsupportedFileError(ValueError):
    """A well-formed file that this version of the package cannot read."""


class Layout(Protocol):
    """What the container needs to know of a model; `Codec` has these attributes."""

    @property
    def name(self) -> str: ...
    @property
    def hop(self) -> int: ...
    @property
    def n_codebooks(self) -> int: ...
    @property
    def codebook_bits(self) -> int: ...
    @property
    def normalize(self) -> bool: ...
    @property
    def segment_length(self) -> int | None: ...
    @property
    def segment_stride(self) -> int | None: ...


@dataclass(frozen=True)
class Header:
    """The metadata of a file: `audio_length` is in samples per channel at the model's rate.

    `stored_size` is how many bytes it takes in the file that it was read from, else 0.
    """

    model: str
    audio_length: int
    n_codebooks: int
    language_model: bool = False
    stored_size: int = field(default=0, compare=False)

    def to_bytes(self) -> bytes:
        """The header as it stands in the file, from the magic to the end of the JSON object."""
        metadata = {
            "m": self.model,
            "al": self.audio_length,
            "nc": self.n_codebooks,
            "lm": self.language_model,
        }
        text = json.dumps(metadata).encode()
        return PREFIX.pack(MAGIC, _VERSION, len(text)) + text


def shown_model(name: str) -> str:
    """A model's name out of a file that others wrote, fit for a message: at most 100 characters,
    all of them printable ASCII."""
    if name and name.isascii() and name.isprintable() and len(name) <= 100:
        return name
    text = ascii(name)
    return text if len(text) <= 100 else text[:96] + "...'"


def read_prefix(stream: IO[bytes], name: str = "<stream>") -> bytes:
    """The nine bytes before a file's metadata, whatever its version.

    Raises EOFError where the stream ends too soon and ValueError for a file that is no ECDC file,
    which more than one bit of the magic must tell: version 1 can put one right.
    """
    prefix = stream.read(len(MAGIC))
    if not any(_is_near(prefix, MAGIC[:size]) for size in range(len(MAGIC) + 1)):
        raise ValueError(f"{name}: not an ECDC file")  # even if it is shorter than the prefix
    return prefix + read_exactly(stream, PREFIX.size - len(prefix), name)


def _is_near(data: bytes, other: bytes) -> bool:
    """Whether at most one bit differs."""
    flipped = int.from_bytes(data, "big") ^ int.from_bytes(other, "big")
    return len(data) == len(other) and flipped & (flipped - 1) == 0


def read_header(stream: IO[bytes], name: str = "<stream>", prefix: bytes | None = None) -> Header:
    """Reads a version 0 header and leaves `stream` at the first byte of the payload.

    `name` is what error messages call the stream; `prefix` was read of it already. Raises EOFError
    where the stream ends too soon and ValueError for anything that is not a valid header.
    """
    if prefix is None:
        prefix = read_prefix(stream, name)
    magic, version, size = PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise ValueError(f"{name}: not an ECDC file")
    if version != _VERSION:
        raise UnsupportedFileError(f"{name}: ECDC version {version} is not supported, only 0 and 1")
    if size > _MAX_JSON:
        raise ValueError(f"{name}: damaged header ({size} bytes of metadata)")
    text = read_exactly(stream, size, name)
    try:
        metadata = json.loads(text.decode())
    except (ValueError, RecursionError):
        raise ValueError(f"{name}: damaged header (metadata is not JSON)") from None
    return _checked_header(metadata, PREFIX.size + size, name)


def _checked_header(metadata: Any, size: int, name: str) -> Header:
    if not isinstance(metadata, dict):
        raise ValueError(f"{name}: damaged header (metadata is not an object)")
    # `type() is`, not isinstance: JSON's true is not a number.
    for key, kind in (("m", str), ("al", int), ("nc", int), ("lm", bool)):
        if type(metadata.get(key)) is not kind:
            raise ValueError(f"{name}: damaged header ({key!r} is missing or no {kind.__name__})")
    for key in ("al", "nc"):
        if not 1 <= metadata[key] < 1 << 63:
            raise ValueError(f"{name}: damaged header ({key!r} is out of range)")
    return Header(metadata["m"], metadata["al"], metadata["nc"], metadata["lm"], size)


def payload_size(layout: Layout, header: Header) -> int:
    """Bytes of payload that a file of packed codes with this header has."""
    length, stride = layout.segment_length, layout.segment_stride
    if length is None or stride is None:
        return _segment_size(layout, header.n_codebooks, header.audio_length)
    # All full segments at once, so that an absurd length in a header costs no time. The loop runs
    # over the others, fewer than length / stride + 1, which programs bound.
    full = max((header.audio_length - length) // stride + 1, 0)
    size = full * _segment_size(layout, header.n_codebooks, length)
    for offset in range(full * stride, header.audio_length, stride):
        size += _segment_size(layout, header.n_codebooks, header.audio_length - offset)
    return size


def check_payload(layout: Layout, header: Header, left: int | None, name: str) -> int:
    """Returns `payload_size`, after checking that the header suits the model and its payload.

    left: bytes after the header, None if unknown. Raises ValueError for more codebooks than the
    model has, EOFError for too few bytes.
    """
    if header.n_codebooks > layout.n_codebooks:
        raise ValueError(
            f"{name}: has {header.n_codebooks} codebooks, "
            f"but {layout.name} has only {layout.n_codebooks}"
        )
    size = payload_size(layout, header)
    if left is not None and left < size:
        raise EOFError(f"{name}: truncated ({left} of {size} bytes of codes)")
    return size


class PieceWriter:
    """Writes codes as a payload, piece by piece.

    stream: where the bytes go; n_codebooks: rows of every piece's codes; coder: the language model
    to code with, None to pack bits.
    """

    def __init__(
        self,
        stream: IO[bytes],
        layout: Layout,
        n_codebooks: int,
        coder: SegmentCoder | None = None,
    ) -> None:
        self._stream, self._layout = stream, layout
        self._n_codebooks, self._coder = n_codebooks, coder
        self._segment: SegmentEncoder | None = None
        self._frames = 0  # of the segment
        self._size = 0  # what the segments before it take, packed

    def write(self, piece: Piece) -> None:
        """Appends `piece` (codes uint16 [n_codebooks, frames]; the first one starts a segment).

        Raises ValueError for another number of rows and for a missing or invalid scale.
        """
        if piece.codes.ndim != 2 or piece.codes.shape[0] != self._n_codebooks:
            raise ValueError(
                f"codes: expected shape [{self._n_codebooks}, frames], not {piece.codes.shape}"
            )
        if piece.start or self._segment is None:
            self._end_segment()
            if self._layout.normalize:
                self._stream.write(_SCALE.pack(_checked_scale(piece.scale, "codes")))
            if self._coder is None:
                self._segment = PackedEncoder(self._layout.codebook_bits)
            else:
                self._segment = self._coder.encoder(self._n_codebooks)
        self._stream.write(self._segment.push(piece.codes))
        self._frames += piece.codes.shape[1]

    def finish(self, audio_length: int) -> Header:
        """Ends the payload and returns the header that belongs before it.

        Raises ValueError if the pieces do not make up `audio_length` samples per channel.
        """
        self._end_segment()
        lm = self._coder is not None
        header = Header(self._layout.name, audio_length, self._n_codebooks, lm)
        expected = payload_size(self._layout, header)
        if self._size != expected:
            raise ValueError(
                f"codes: {audio_length} samples make {expected} bytes of codes, not {self._size}"
            )
        return header

    def _end_segment(self) -> None:
        if self._segment is not None:
            self._stream.write(self._segment.flush())
            self._size += _packed_size(self._layout, self._n_codebooks, self._frames)
        self._segment, self._frames = None, 0


class Reader:
    """Reads the codes of a file, whose header was read, in pieces of bounded size.

    Checks at once that the header suits the model (ValueError; UnsupportedFileError for a file that
    was written with a language model where there is no `coder`) and, if codes are packed and the
    stream can be sought, that it is long enough (EOFError). Memory is bounded by what the stream
    holds, whatever its header promises. Version 0 has no checksums: `damaged` and `lost` are for
    the other one's sake.
    """

    damaged = False
    start = "exact"

    def __init__(
        self,
        stream: IO[bytes],
        header: Header,
        layout: Layout,
        name: str = "<stream>",
        coder: SegmentCoder | None = None,
    ) -> None:
        self.header = header
        self.audio_length = header.audio_length
        self.lost: list[tuple[int, int | None]] = []
        self._stream = stream
        self._layout = layout
        self._name = name
        self._coder = coder if header.language_model else None
        if header.model != layout.name:
            found = shown_model(header.model)
            raise ValueError(f"{name}: written by model {found}, not {layout.name}")
        if header.language_model and coder is None:
            raise UnsupportedFileError(
                f"{name}: written with a language model: reading it needs"
                " Codec.load(..., lm_checkpoint=...) and `pip install 'encodec-fast[torch]'`"
            )
        seekable = stream.seekable() and not header.language_model
        check_payload(layout, header, _bytes_left(stream) if seekable else None, name)

    def pieces(self, first: int = 0) -> tuple[int, Iterator[Piece]]:
        """0, whatever `first` is, and the pieces of the whole file; call it once.

        A segmented model gives one piece per segment, any other model pieces of up to 600 frames.
        While iterating: EOFError at a premature end, ValueError for a scale that is negative or not
        finite, and for codes that a language model cannot read. Bytes after the last one are
        ignored.
        """
        if self._coder is not None:
            # Nothing but decoding tells how long a segment is, so more is read and given back.
            self._stream = io.BytesIO(b"".join(iter(lambda: self._stream.read(1 << 20), b"")))
        return 0, self._read_segments()

    def _read_segments(self) -> Iterator[Piece]:
        layout, total = self._layout, self.header.audio_length
        length, stride = layout.segment_length, layout.segment_stride
        if length is None or stride is None:
            yield from self._read_segment(_frames(layout, total), _FRAMES_PER_PIECE)
            return
        for offset in range(0, total, stride):
            frames = _frames(layout, min(length, total - offset))
            yield from self._read_segment(frames, frames)

    def _read_segment(self, frames: int, step: int) -> Iterator[Piece]:
        scale = None
        if self._layout.normalize:
            (value,) = _SCALE.unpack(read_exactly(self._stream, _SCALE.size, self._name))
            scale = _checked_scale(value, self._name)
        rows = self.header.n_codebooks
        if self._coder is None:
            bits = self._layout.codebook_bits
            parts = packed_codes(self._stream, rows, frames, step, bits, self._name)
        else:
            parts = coded_codes(self._stream, rows, frames, step, self._coder, self._name)
        for number, codes in enumerate(parts):
            yield Piece(codes, scale, start=number == 0)


def _frames(layout: Layout, samples: int) -> int:
    return -(-samples // layout.hop)


def _segment_size(layout: Layout, n_codebooks: int, samples: int) -> int:
    return _packed_size(layout, n_codebooks, _frames(layout, samples))


def _packed_size(layout: Layout, n_codebooks: int, frames: int) -> int:
    bits = frames * n_codebooks * layout.codebook_bits
    return -(-bits // 8) + (_SCALE.size if layout.normalize else 0)


def _checked_scale(scale: float | None, name: str) -> float:
    if scale is None or not 0 <= scale <= _MAX_SCALE:
        raise ValueError(f"{name}: the scale of a segment must be finite and >= 0, not {scale}")
    return scale


def _bytes_left(stream: IO[bytes]) -> int:
    here = stream.tell()
    end = stream.seek(0, 2)
    stream.seek(here)
    return end - here
