"""Whole files, block by block: compress, decompress, roundtrip and info, in constant memory."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, NamedTuple

from encodec_fast import ecdc, program, store
from encodec_fast.audio import AudioReader, Source
from encodec_fast.audio_writer import AudioWriter, Encoding
from encodec_fast.blocks import Piece
from encodec_fast.codec import Codec
from encodec_fast.output import OutputFile, Target, naming, target_name

# Called with the seconds of audio done so far and, where it is known, their total.
Progress = Callable[[float, "float | None"], None]


class Written(NamedTuple):
    """What was written: `audio_length` samples per channel, and the largest magnitude `peak` that
    the decoder produced, before clipping (0 where nothing was decoded)."""

    audio_length: int
    sample_rate: int
    channels: int
    peak: float


@dataclass(frozen=True)
class FileInfo:
    """What `info` tells of a file.

    Sizes are in bytes, `duration` in seconds; `kbps` is the bitrate of the payload and `ratio` the
    size of the same audio as 16-bit PCM over `file_size`. All that needs the model's sample rate is
    None where the model is not installed.
    """

    version: int
    model: str
    audio_length: int
    n_codebooks: int
    language_model: bool
    file_size: int
    payload_size: int
    sample_rate: int | None = None
    channels: int | None = None
    duration: float | None = None
    kbps: float | None = None
    ratio: float | None = None


def compress_file(
    codec: Codec,
    source: Source,
    target: Target,
    *,
    bandwidth: float | None = 6.0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Written:
    """Compresses an audio file of any rate and channel count to an `.ecdc` file, version 0.

    source, target: paths or binary streams; bandwidth: kbps, one that the model supports, None for
    all codebooks. The target appears complete or not at all. Raises ValueError for an unsupported
    bandwidth and for audio that is empty, NaN or infinite; OSError.
    """
    n_q = codec.n_q(bandwidth)
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(OutputFile(target, overwrite))
        reader = stack.enter_context(AudioReader(source, codec.sample_rate, codec.channels))
        # The header comes first and holds the length, which is known last.
        payload = stack.enter_context((output.path.with_suffix(".payload")).open("xb+"))
        stack.callback(Path(payload.name).unlink)
        writer = ecdc.PieceWriter(payload, codec, n_q)
        encoder = _Encoder(codec, reader, n_q, progress)
        for piece in encoder.pieces():
            with naming(output.name):
                writer.write(piece)
        header = writer.finish(encoder.length)
        with naming(output.name), output.path.open("wb") as file:
            payload.seek(0)
            file.write(header.to_bytes())
            shutil.copyfileobj(payload, file)
    return Written(encoder.length, codec.sample_rate, codec.channels, 0.0)


def decompress_file(
    source: Source,
    target: Target,
    *,
    model: Codec | str | os.PathLike[str] | None = None,
    encoding: Encoding = "pcm16",
    rescale: bool = False,
    overwrite: bool = False,
    threads: int = 1,
    progress: Progress | None = None,
) -> Written:
    """Decompresses an `.ecdc` file to a `.wav` or `.flac` file, or to a binary stream as a WAV.

    model: a codec, a model's name or a program file; None takes the model that the file names.
    encoding, rescale: see `AudioWriter`. The target appears complete or not at all. Raises
    ValueError for a file that is damaged, foreign or from an unknown model, EOFError for a
    truncated one; OSError.
    """
    with _opened(source) as stream:
        reader = ecdc.Reader(stream, target_name(source))
        if model is None:
            model = store.find_model(reader.header.model)
        codec = model if isinstance(model, Codec) else Codec.load(model, threads=threads)
        if codec.name != reader.header.model:
            raise ValueError(
                f"{target_name(source)}: written by model {reader.header.model}, not {codec.name}"
            )
        length = reader.header.audio_length
        pieces = reader.pieces(codec)
        with AudioWriter(
            target,
            codec.sample_rate,
            codec.channels,
            encoding=encoding,
            rescale=rescale,
            overwrite=overwrite,
            length=length,
        ) as writer:
            _decode(codec, pieces, writer, lambda: length, progress)
    return Written(length, codec.sample_rate, codec.channels, writer.peak)


def roundtrip_file(
    codec: Codec,
    source: Source,
    target: Target,
    *,
    bandwidth: float | None = 6.0,
    encoding: Encoding = "pcm16",
    rescale: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Written:
    """Writes what `compress_file` and `decompress_file` would, without the file in between."""
    n_q = codec.n_q(bandwidth)
    with (
        AudioReader(source, codec.sample_rate, codec.channels) as reader,
        AudioWriter(
            target,
            codec.sample_rate,
            codec.channels,
            encoding=encoding,
            rescale=rescale,
            overwrite=overwrite,
            length=round(reader.duration * codec.sample_rate),
        ) as writer,
    ):
        audio = _Encoder(codec, reader, n_q, progress)
        _decode(codec, audio.pieces(), writer, lambda: audio.length, None)
    return Written(audio.length, codec.sample_rate, codec.channels, writer.peak)


def info(source: Source, model: str | os.PathLike[str] | None = None) -> FileInfo:
    """Describes an `.ecdc` file, also one whose model is missing or that has a language model.

    model: as for `decompress_file`. Raises ValueError for a file that is damaged or foreign,
    EOFError for a truncated one; OSError.
    """
    name = target_name(source)
    with _opened(source) as stream:
        header = ecdc.read_header(stream, name)
        payload_size = sum(len(block) for block in iter(lambda: stream.read(1 << 20), b""))
    about = FileInfo(
        version=0,
        model=header.model,
        audio_length=header.audio_length,
        n_codebooks=header.n_codebooks,
        language_model=header.language_model,
        file_size=len(header.to_bytes()) + payload_size,
        payload_size=payload_size,
    )
    try:
        path = store.find_model(header.model) if model is None else store.find_program(model)
    except store.ModelNotFoundError:
        if model is None:
            return about
        raise
    layout = program.read_header(path)
    if not header.language_model:
        payload_size = ecdc.check_payload(layout, header, payload_size, name)
    duration = header.audio_length / layout.sample_rate
    return replace(
        about,
        payload_size=payload_size,
        sample_rate=layout.sample_rate,
        channels=layout.channels,
        duration=duration,
        kbps=payload_size * 8 / duration / 1000,
        ratio=header.audio_length * layout.channels * 2 / about.file_size,
    )


class _Encoder:
    """The codes of an audio file, piece by piece; `length` counts the samples read so far."""

    def __init__(
        self, codec: Codec, reader: AudioReader, n_q: int, progress: Progress | None
    ) -> None:
        self.length = 0
        self._codec = codec
        self._reader = reader
        self._n_q = n_q
        self._progress = progress

    def pieces(self) -> Iterator[Piece]:
        encoder = self._codec.block_encoder(self._n_q)
        for block in self._reader.blocks():
            self.length += block.shape[1]
            yield from encoder.push(block)
            if self._progress:
                self._progress(self.length / self._codec.sample_rate, self._reader.duration or None)
        yield from encoder.flush()


def _decode(
    codec: Codec,
    pieces: Iterable[Piece],
    writer: AudioWriter,
    length: Callable[[], int],
    progress: Progress | None,
) -> None:
    """Decodes `pieces` into `writer`, without what exceeds `length()` samples (the last frame).

    `length` may grow while `pieces` are made: complete frames never exceed what was encoded.
    """
    decoder = codec.block_decoder()
    written = 0
    for piece in pieces:
        audio = decoder.push(piece)[:, : length() - written]
        writer.write(audio)
        written += audio.shape[1]
        if progress:
            progress(written / codec.sample_rate, length() / codec.sample_rate)
    writer.write(decoder.flush()[:, : length() - written])


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[IO[bytes]]:
    if isinstance(source, (str, os.PathLike)):
        with Path(source).open("rb") as stream:
            yield stream
    else:
        yield source
