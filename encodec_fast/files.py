"""Whole files, block by block: compress, decompress, roundtrip and info, in constant memory."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, NamedTuple

from encodec_fast import ecdc, program, store
from encodec_fast.audio import AudioReader, Source
from encodec_fast.audio_writer import AudioWriter, Encoding
from encodec_fast.codec import Codec
from encodec_fast.output import OutputFile, Target, naming, target_name
from encodec_fast.segments import Piece

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
    None where the model is not installed. `model` is as the file has it: any text at all.
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
    bandwidth, for audio that is empty, NaN, infinite or too loud, and for a target that is the
    source; OSError for files that cannot be read (also because they hold no audio) or written.
    """
    n_q = codec.n_q(bandwidth)
    _check_distinct(source, target)
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(OutputFile(target, overwrite))
        reader = stack.enter_context(AudioReader(source, codec.sample_rate, codec.channels))
        stack.enter_context(naming(output.name))  # closing a file may write, too
        # The header comes first and holds the length, which is known last.
        payload = stack.enter_context((output.path.with_suffix(".payload")).open("xb+"))
        stack.callback(Path(payload.name).unlink)
        writer = ecdc.PieceWriter(payload, codec, n_q)
        encoder = _Encoder(codec, reader, n_q, progress)
        for piece in encoder.pieces():
            writer.write(piece)
        header = writer.finish(encoder.length)
        with output.path.open("wb") as file:
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
    ValueError for a file that is damaged, foreign or from an unknown model and for a target that is
    the source, EOFError for a truncated one; OSError for files that cannot be read or written.
    """
    name = target_name(source, "source")
    _check_distinct(source, target)
    with _opened(source) as stream:
        reader = ecdc.Reader(stream, name)
        if model is None:
            model = store.find_model(reader.header.model)
        codec = model if isinstance(model, Codec) else Codec.load(model, threads=threads)
        if codec.name != reader.header.model:
            found = ecdc.shown_model(reader.header.model)
            raise ValueError(f"{name}: written by model {found}, not {codec.name}")
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
    """Writes what `compress_file` and `decompress_file` would, without the file in between.

    Arguments and errors as theirs.
    """
    n_q = codec.n_q(bandwidth)
    _check_distinct(source, target)
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

    model: a model's name or a program file; None takes the model that the file names. Raises
    ValueError for a file that is damaged or foreign, ModelNotFoundError for a `model` that is not
    there, EOFError for a truncated file; OSError for one that cannot be read.
    """
    name = target_name(source, "source")
    with _opened(source) as stream:
        header = ecdc.read_header(stream, name)
        payload_size = sum(len(block) for block in iter(lambda: stream.read(1 << 20), b""))
    about = FileInfo(
        version=0,
        model=header.model,
        audio_length=header.audio_length,
        n_codebooks=header.n_codebooks,
        language_model=header.language_model,
        file_size=header.stored_size + payload_size,
        payload_size=payload_size,
    )
    if model is None:
        try:
            path = store.find_model(header.model)
        except ValueError:  # not installed, or not even a model's name
            return about
    else:
        path = store.find_program(model)
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
        with self._codec.block_encoder(self._n_q) as encoder:
            for block in self._reader.blocks():
                self.length += block.shape[1]
                with self._naming():
                    pieces = encoder.push(block)
                yield from pieces
                if self._progress:
                    seconds = self.length / self._codec.sample_rate
                    self._progress(seconds, self._reader.duration or None)
            with self._naming():
                pieces = encoder.flush()
            yield from pieces

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        """Audio that the model refuses (too loud) is the file's, not an argument called wav."""
        try:
            yield
        except ValueError as error:
            reason = str(error).removeprefix("wav: ")
            raise ValueError(f"{self._reader.name}: {reason}") from None


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
    written = 0
    with codec.block_decoder() as decoder:
        for piece in pieces:
            audio = decoder.push(piece)[:, : length() - written]
            writer.write(audio)
            written += audio.shape[1]
            if progress:
                progress(written / codec.sample_rate, length() / codec.sample_rate)
        writer.write(decoder.flush()[:, : length() - written])


def _check_distinct(source: Source, target: Target) -> None:
    """Raises ValueError where both are one regular file, which would destroy the input."""
    one, other = _status(source), _status(target)
    if one and other and stat.S_ISREG(one.st_mode) and os.path.samestat(one, other):
        raise ValueError(f"output {target_name(target)}: is the input itself, choose another name")


def _status(file: Source | Target) -> os.stat_result | None:
    try:
        if isinstance(file, (str, os.PathLike)):
            return Path(file).stat()
        return os.fstat(file.fileno())
    except (OSError, ValueError, AttributeError):
        return None  # not there yet, or in memory; other trouble shows when it is opened


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[IO[bytes]]:
    if isinstance(source, (str, os.PathLike)):
        with Path(source).open("rb") as stream:
            yield stream
    else:
        yield source
