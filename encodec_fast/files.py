"""Whole files: compress, decompress and roundtrip, block by block in constant memory."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from encodec_fast import chunk_codes, container, decoding, store
from encodec_fast._native import Audio
from encodec_fast.audio import AudioReader, Source
from encodec_fast.audio_writer import AudioWriter, Encoding
from encodec_fast.codec import Codec
from encodec_fast.container import Lost
from encodec_fast.output import OutputFile, Target, naming, target_name
from encodec_fast.segments import Piece

# Called with the seconds of audio done so far and, where it is known, their total.
Progress = Callable[[float, "float | None"], None]


class Written(NamedTuple):
    """What was written: `audio_length` samples per channel, the largest magnitude `peak` that the
    decoder produced, before clipping (0 where nothing was decoded), and the ranges of time in
    seconds (first, end) that a damaged file had lost (end None: unknown)."""

    audio_length: int
    sample_rate: int
    channels: int
    peak: float
    lost: tuple[Lost, ...] = ()


def compress_file(
    codec: Codec,
    source: Source,
    target: Target,
    *,
    bandwidth: float | None = 6.0,
    entropy: str = "none",
    version: int = 1,
    chunk: float = chunk_codes.KEY_SECONDS,
    metadata: dict[str, Any] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Written:
    """Compresses an audio file of any rate and channel count to an `.ecdc` file.

    source, target: paths or binary streams; bandwidth: kbps, one that the model supports, None for
    all codebooks; entropy: "none", "static" or "lm"; version: of the container, 1 or the
    reference's 0; chunk: seconds per chunk of version 1, metadata: free JSON in its header. The
    target appears complete or not at all. Raises ValueError for an unsupported bandwidth, entropy
    mode or version, for audio that is empty, NaN, infinite or too loud, and for a target that is
    the source; OSError for files that cannot be read (also because they hold no audio) or written.
    """
    n_q = codec.n_q(bandwidth)
    open_writer = codec.piece_writer(n_q, entropy, version, chunk, metadata)
    _check_distinct(source, target)
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(OutputFile(target, overwrite))
        reader = stack.enter_context(AudioReader(source, codec.sample_rate, codec.channels))
        stack.enter_context(naming(output.name))  # closing a file may write, too
        encoder = _Encoder(codec, reader, n_q, progress)
        file = stack.enter_context(output.path.open("wb+"))
        if version == 1:
            with open_writer(file) as writer:
                for piece in encoder.pieces():
                    writer.write(piece)
                writer.finish(encoder.length)
        else:
            _write_version_0(open_writer, encoder, file, output)
    return Written(encoder.length, codec.sample_rate, codec.channels, 0.0)


def decompress_file(
    source: Source,
    target: Target,
    *,
    model: Codec | str | os.PathLike[str] | None = None,
    start: float = 0.0,
    duration: float | None = None,
    exact: bool = False,
    strict: bool = False,
    lm_checkpoint: str | os.PathLike[str] | None = None,
    encoding: Encoding = "pcm16",
    rescale: bool = False,
    overwrite: bool = False,
    threads: int = 1,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Written:
    """Decompresses an `.ecdc` file to a `.wav` or `.flac` file, or to a binary stream as a WAV.

    model: a codec, a model's name or a program file; None takes the model that the file names.
    start, duration: the range to decode, in seconds; exact: as in the decode of the whole file,
    whatever it costs. lm_checkpoint, device: see Codec.load, where `model` is no codec. encoding,
    rescale: see `AudioWriter`. The target appears complete or not at all. A damaged version 1 file
    is decoded as far as it survives, with silence for what is lost, a DamageWarning and `lost` in
    the result; `strict` refuses it. Raises ValueError for a file that is damaged (version 0,
    `strict`, or nothing survives), foreign or from an unknown model and for a target that is the
    source, EOFError for a truncated one; OSError for files that cannot be read or written.
    """
    name = target_name(source, "source")
    _check_distinct(source, target)
    if isinstance(model, Codec) and device != "cpu":
        raise ValueError(f"device: a Codec has its own, expected none beside it, found {device!r}")
    with opened(source) as stream:
        header = container.read_header(stream, name)
        if model is None:
            model = store.find_model(container.model_name(header))
        if isinstance(model, Codec):
            codec = model
        else:
            codec = Codec.load(model, None, threads, lm_checkpoint, device)
        recording = codec.open_recording(stream, header, name)
        blocks = decoding.decoded(
            codec.program,
            recording,
            name,
            threads=codec.threads,
            start=start,
            duration=duration,
            exact=exact,
            strict=strict,
        )
        length = recording.audio_length
        with AudioWriter(
            target,
            codec.sample_rate,
            codec.channels,
            encoding=encoding,
            rescale=rescale,
            overwrite=overwrite,
            length=length or 0,
        ) as writer:
            written = 0
            for block in blocks:
                writer.write(block)
                written += block.shape[1]
                if progress:
                    total = None if length is None else length / codec.sample_rate
                    progress(written / codec.sample_rate, total)
            lost = container.report_damage(recording, codec.program, name, strict)
    return Written(written, codec.sample_rate, codec.channels, writer.peak, tuple(lost))


def decompress(
    data: bytes, model: str | os.PathLike[str] | None = None, strict: bool = False
) -> tuple[Audio, int]:
    """The recording float32 [channels, samples] in the bytes of an .ecdc file, and its sample rate.

    The model is the one the data names, unless `model` (a name or a program file) is given. Damage
    and errors as Codec.decompress; ModelNotFoundError (a ValueError) if the model is not installed.
    """
    if model is None:
        header = container.read_header(container.open_bytes(data, "data"), "data")
        model = store.find_model(container.model_name(header))
    codec = Codec.load(model)
    return codec.decompress(data, strict), codec.sample_rate


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
        written = 0
        with codec.block_decoder() as decoder:
            for piece in audio.pieces():
                block = decoder.push(piece)[:, : audio.length - written]
                writer.write(block)
                written += block.shape[1]
            writer.write(decoder.flush()[:, : audio.length - written])
    return Written(audio.length, codec.sample_rate, codec.channels, writer.peak)


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


def _write_version_0(
    open_writer: Callable[[IO[bytes]], Any], encoder: _Encoder, file: IO[bytes], output: OutputFile
) -> None:
    """The header comes first and holds the length, which is known last."""
    with output.path.with_suffix(".payload").open("xb+") as payload:
        try:
            writer = open_writer(payload)
            for piece in encoder.pieces():
                writer.write(piece)
            header = writer.finish(encoder.length)
            payload.seek(0)
            file.write(header.to_bytes())
            shutil.copyfileobj(payload, file)
        finally:
            Path(payload.name).unlink()


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
def opened(source: Source) -> Iterator[IO[bytes]]:
    """A binary stream of a path, or the stream itself."""
    if isinstance(source, (str, os.PathLike)):
        with Path(source).open("rb") as stream:
            yield stream
    else:
        yield source
