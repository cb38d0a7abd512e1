"""`.ecdc` files of either version, as one thing to read: a header, then pieces of codes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, Protocol

from encodec_fast import chunk_header, ecdc
from encodec_fast.chunk_header import Opened
from encodec_fast.ecdc import MAGIC, PREFIX
from encodec_fast.program import Program
from encodec_fast.segments import Gap, Piece

# Ranges of lost time that a message names.
_NAMED_RANGES = 10

AnyHeader = ecdc.Header | Opened
Lost = tuple[float, float | None]


class DamageWarning(UserWarning):
    """A file was damaged and its rest was decoded. `lost`: the ranges of lost time in seconds
    (first, end), the end None where the length of the recording is not known."""

    def __init__(self, message: str, lost: list[Lost]) -> None:
        super().__init__(message)
        self.lost = lost


# Each of them, as two files may be damaged in the same place. The caller's own filters come first.
warnings.simplefilter("always", DamageWarning, append=True)


def read_header(stream: IO[bytes], name: str = "<stream>") -> AnyHeader:
    """The header of a file of either version, `stream` standing behind it.

    Raises EOFError where the stream ends too soon, ValueError for a damaged header and for what is
    no such file, UnsupportedFileError for another version.
    """
    prefix = ecdc.read_prefix(stream, name)
    magic, version, _ = PREFIX.unpack(prefix)
    other = version ^ chunk_header.VERSION
    if version and other & (other - 1) == 0 and (magic == MAGIC or not other):
        try:
            return chunk_header.read_header(prefix, stream, name)
        except (ValueError, EOFError):
            if magic == MAGIC and not other:
                raise
    return ecdc.read_header(stream, name, prefix)


def open_bytes(data: object, name: str) -> io.BytesIO:
    """A stream of the argument `name`, the bytes of a file. Raises ValueError for anything else."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise ValueError(f"{name}: expected the bytes of a file, found {type(data).__name__}")
    return io.BytesIO(data)


def model_name(header: AnyHeader) -> str:
    """The name of the model that a file says it was written by: any text at all."""
    return header.model if isinstance(header, ecdc.Header) else header.header.model


def file_of(
    open_writer: Callable[[IO[bytes]], Any], pieces: Iterable[Piece], audio_length: int
) -> bytes:
    """The file that a writer of pieces makes of a recording; see Codec.piece_writer."""
    body = io.BytesIO()
    writer = open_writer(body)
    for piece in pieces:
        writer.write(piece)
    header = writer.finish(audio_length)
    return (b"" if header is None else header.to_bytes()) + body.getvalue()


class Recording(Protocol):
    """The codes of a file.

    audio_length: samples per channel, None until it is known; lost: ranges of frames (segments)
    that were found missing so far; damaged: whether anything was; start: how the encoder's stream
    began; pieces(first): where the result begins, at or before frame (segment) `first`, and pieces
    from there on without a break.
    """

    @property
    def start(self) -> str: ...
    @property
    def audio_length(self) -> int | None: ...
    @property
    def damaged(self) -> bool: ...
    @property
    def lost(self) -> list[tuple[int, int | None]]: ...
    def pieces(self, first: int = 0) -> tuple[int, Iterator[Piece | Gap]]: ...


def report_damage(recording: Recording, program: Program, name: str, strict: bool) -> list[Lost]:
    """The ranges of lost time of a recording that was read, after a DamageWarning if anything was
    damaged. Raises ValueError instead where `strict`."""
    if not recording.damaged:
        return []
    if strict:
        raise ValueError(f"{name}: damaged (without `strict`, what survives is decoded)")
    about = program.header
    unit = (about.segment_stride or about.hop) / about.sample_rate
    lost: list[Lost] = [
        (first * unit, None if end is None else end * unit) for first, end in recording.lost
    ]
    ranges = ", ".join(
        f"{first:.2f} s to {'the end' if end is None else f'{end:.2f} s'}"
        for first, end in lost[:_NAMED_RANGES]
    )
    if len(lost) > _NAMED_RANGES:
        ranges += f" and {len(lost) - _NAMED_RANGES} more ranges"
    message = f"{name}: damaged, lost {ranges or 'nothing'}"
    warnings.warn(DamageWarning(message, lost), stacklevel=2)
    return lost
