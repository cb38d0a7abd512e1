"""What an `.ecdc` file is, told without decoding it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import IO, Any, cast

from encodec_fast import container, ecdc, program, store
from encodec_fast.audio import Source
from encodec_fast.chunk_header import Opened
from encodec_fast.chunks import ChunkReader, End, read_index
from encodec_fast.files import opened
from encodec_fast.output import target_name


@dataclass(frozen=True)
class FileInfo:
    """What `info` tells of a file.

    Sizes are in bytes, lengths in seconds; `payload_size` is all behind the header, `kbps` its
    bitrate and `ratio` the size of the same audio as 16-bit PCM over `file_size`. `model` is as the
    file has it: any text at all. None is what is not known: of version 0 all that needs the sample
    rate where the model is not installed; of version 1 `audio_length` and what follows from it
    where the file has no end record (`finished` is then false). `damaged` is about the chunks,
    which are looked at only where there is no index.
    """

    version: int
    model: str
    n_codebooks: int
    entropy: str
    file_size: int
    payload_size: int
    audio_length: int | None = None
    sample_rate: int | None = None
    channels: int | None = None
    duration: float | None = None
    kbps: float | None = None
    ratio: float | None = None
    model_hash: str | None = None
    entropy_hash: str | None = None
    chunks: int | None = None
    chunk_seconds: float | None = None
    key_seconds: float | None = None
    finished: bool = True
    damaged: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)


def info(source: Source, model: str | os.PathLike[str] | None = None) -> FileInfo:
    """Describes an `.ecdc` file, also one whose model is missing.

    model: a model's name or a program file; None takes the model that the file names. Raises
    ValueError for a file that is damaged or foreign, ModelNotFoundError for a `model` that is not
    there, EOFError for a truncated version 0 file; OSError for one that cannot be read.
    """
    name = target_name(source, "source")
    with opened(source) as stream:
        header = container.read_header(stream, name)
        layout = _layout(container.model_name(header), model)
        if isinstance(header, ecdc.Header):
            return _with_rates(_version_0(stream, header, layout, name))
        return _with_rates(_version_1(stream, header, layout))


def _layout(name: str, model: str | os.PathLike[str] | None) -> program.Header | None:
    if model is not None:
        return program.read_header(store.find_program(model))
    try:
        return program.read_header(store.find_model(name))
    except ValueError:  # not installed, or not even a model's name
        return None


def _version_0(
    stream: IO[bytes], header: ecdc.Header, layout: program.Header | None, name: str
) -> FileInfo:
    payload_size = sum(len(block) for block in iter(lambda: stream.read(1 << 20), b""))
    about = FileInfo(
        version=0,
        model=header.model,
        n_codebooks=header.n_codebooks,
        entropy="lm" if header.language_model else "none",
        file_size=header.stored_size + payload_size,
        payload_size=payload_size,
        audio_length=header.audio_length,
    )
    if layout is None:
        return about
    if not header.language_model:
        payload_size = ecdc.check_payload(layout, header, payload_size, name)
    return replace(
        about,
        payload_size=payload_size,
        sample_rate=layout.sample_rate,
        channels=layout.channels,
    )


def _version_1(stream: IO[bytes], found: Opened, layout: program.Header | None) -> FileInfo:
    header = found.header
    hop = 1 if layout is None else layout.hop
    index = None
    if stream.seekable():
        index = read_index(stream, found, hop)
        found = found._replace(rest=b"")
    end = None if index is None else index.end
    if index is not None:
        chunks, damaged = index.end.chunks, found.damaged
        first = stream.tell()
        size = stream.seek(0, 2) - first
    else:
        counted = _Counted(stream)
        reader = ChunkReader(cast("IO[bytes]", counted), found, hop)
        chunks = expected = 0
        missing = False
        for record in reader:
            if isinstance(record, End):
                end = record
                missing |= record.chunks != expected
            else:
                missing |= record.number != expected
                expected = record.number + 1
                chunks += 1
        while counted.read(1 << 20):
            pass
        size = len(found.rest) + counted.size
        damaged = reader.damaged or missing
    seconds = None if layout is None else header.chunk_frames * layout.hop / layout.sample_rate
    return FileInfo(
        version=1,
        model=header.model,
        n_codebooks=header.n_codebooks,
        entropy=header.entropy,
        file_size=found.size + size,
        payload_size=size,
        audio_length=None if end is None else end.audio_length,
        sample_rate=header.sample_rate,
        channels=header.channels,
        model_hash=header.model_hash,
        entropy_hash=header.entropy_hash or None,
        chunks=chunks,
        chunk_seconds=seconds,
        key_seconds=None if seconds is None else seconds * header.key_chunks,
        finished=end is not None,
        damaged=damaged,
        metadata=header.metadata,
    )


class _Counted:
    """A stream that counts the bytes read of it in `size`."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.size = 0
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.size += len(data)
        return data


def _with_rates(about: FileInfo) -> FileInfo:
    """With what follows from the length and the sample rate."""
    length, rate = about.audio_length, about.sample_rate
    if not length or rate is None or about.channels is None:
        return about
    duration = length / rate
    return replace(
        about,
        duration=duration,
        kbps=about.payload_size * 8 / duration / 1000,
        ratio=length * about.channels * 2 / about.file_size,
    )
