"""Audio in: files of any format, rate and channel count as blocks at a model's rate.

Reading and resampling are done in blocks through one streaming resampler, so memory does not grow
with the length of a file and samples do not depend on how it is cut into blocks.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from encodec_fast.output import Target, naming, target_name

Float32 = NDArray[np.float32]
Source = Target

_MIN_RATE, _MAX_RATE = 1_000, 768_000
_BLOCK_SAMPLES = 1 << 17  # of all channels together


def check_samples(wav: Float32, name: str, first: int = 0) -> None:
    """Raises ValueError if any sample is NaN or infinite, naming its position.

    wav: float32 [channels, samples]; first: the position of the first sample.
    """
    finite = np.isfinite(wav)
    if finite.all():
        return
    sample, channel = (int(i) for i in np.argwhere(~finite.T)[0])
    value = wav[channel, sample]
    raise ValueError(f"{name}: sample {first + sample} of channel {channel} is {value}")


def convert_audio(wav: Float32, from_rate: int, to_rate: int, channels: int) -> Float32:
    """Converts float32 [any channels, n] to float32 [channels, m] at `to_rate` Hz.

    The same arithmetic as reading a file: to mono by the mean, mono to several channels by
    repetition, any other change by way of mono; then resampled. m is n * to_rate / from_rate,
    rounded half up. Raises ValueError for rates outside 1 to 768 kHz.
    """
    converter = Converter(from_rate, to_rate, wav.shape[0], channels)
    return np.concatenate([converter.push(wav), converter.flush()], axis=1)


class Converter:
    """Channel conversion, then streaming resampling; the result does not depend on the blocks."""

    def __init__(self, from_rate: int, to_rate: int, from_channels: int, channels: int) -> None:
        for rate in (from_rate, to_rate):
            if not _MIN_RATE <= rate <= _MAX_RATE:
                raise ValueError(f"sample rate {rate} Hz: expected {_MIN_RATE} to {_MAX_RATE} Hz")
        self._channels = channels
        self._mix = from_channels != channels
        self._stream: Any = None
        if from_rate != to_rate:
            import soxr  # only where it is needed: start-up time

            resampled = 1 if self._mix else channels
            self._stream = soxr.ResampleStream(from_rate, to_rate, resampled, "float32", "HQ")

    def push(self, block: Float32) -> Float32:
        """float32 [channels in, n] to the float32 [channels out, m] that are complete."""
        if self._mix:
            block = _mean(block)
        if self._stream is not None:
            block = self._stream.resample_chunk(np.ascontiguousarray(block.T)).T
        return self._spread(block)

    def flush(self) -> Float32:
        """The rest, float32 [channels out, m]."""
        if self._stream is None:
            return np.zeros((self._channels, 0), np.float32)
        rows = 1 if self._mix else self._channels
        return self._spread(self._stream.resample_chunk(np.zeros((0, rows), np.float32), True).T)

    def _spread(self, block: Float32) -> Float32:
        shape = (self._channels, block.shape[1])
        return np.ascontiguousarray(np.broadcast_to(block, shape))


def _mean(block: Float32) -> Float32:
    """[channels, n] to [1, n], summed in channel order (np.mean does not promise an order)."""
    total = block[:1].copy()
    with np.errstate(over="ignore", invalid="ignore"):  # the caller refuses what is not finite
        for channel in block[1:]:
            total += channel
    total /= np.float32(len(block))
    return total


class AudioReader:
    """An audio file as blocks of float32 [channels, n] at `sample_rate` Hz, in constant memory.

    source: a path, or a binary stream, which is copied to a temporary file first. Use it in a
    `with` block. `duration` is the length in seconds that the file's header states, a hint, or 0.
    Raises OSError where the file cannot be read, also because libsndfile finds no audio in it, and
    ValueError for audio without a header (.raw), a sample rate outside 1 to 768 kHz and a source
    that is neither a path nor a binary stream.
    """

    def __init__(self, source: Source, sample_rate: int, channels: int) -> None:
        self.name = target_name(source, "source")
        self._stack = contextlib.ExitStack()
        try:
            with sound_errors(self.name):
                opened = self._stack.enter_context(_readable(source))
                self._file = self._stack.enter_context(_SequentialFile(opened))
                rate: int = self._file.samplerate
                frames: int = self._file.frames
                # libsndfile gives the largest integer where the header has no length.
                self.duration = frames / rate if 0 < frames < 1 << 50 else 0.0
                try:
                    self._converter = Converter(rate, sample_rate, self._file.channels, channels)
                except ValueError as error:
                    raise ValueError(f"{self.name}: {error}") from None
        except BaseException:
            self._stack.close()
            raise
        # About a second, so that what the resampler makes of a block is bounded as well.
        self._block = max(min(rate, _BLOCK_SAMPLES // self._file.channels), 1)

    def blocks(self) -> Iterator[Float32]:
        """The samples, once.

        Raises ValueError for samples that are NaN or infinite, or become so by the conversion, and
        for no samples at all or too few to be resampled; OSError where the file cannot be read.
        """
        position = samples = 0
        while True:
            with sound_errors(self.name):
                block = self._file.read(self._block, dtype="float32", always_2d=True).T
            if block.shape[1] == 0:
                break
            check_samples(block, self.name, position)
            position += block.shape[1]
            converted = self._checked(self._converter.push(block))
            samples += converted.shape[1]
            if converted.shape[1]:
                yield converted
        rest = self._checked(self._converter.flush())
        if position == 0:
            raise ValueError(f"{self.name}: no audio (0 samples)")
        if samples + rest.shape[1] == 0:
            rate = self._file.samplerate
            raise ValueError(
                f"{self.name}: too short to be resampled ({position} samples at {rate} Hz)"
            )
        if rest.shape[1]:
            yield rest

    def _checked(self, converted: Float32) -> Float32:
        if not np.isfinite(converted).all():
            raise ValueError(
                f"{self.name}: too loud, mixing or resampling its samples overflows float32"
            )
        return converted

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


# soundfile has no types, which mypy --strict reports for a subclass.
class _SequentialFile(soundfile.SoundFile):  # type: ignore[misc]
    """A file read from start to end.

    soundfile seeks after every read of a seekable file, which is slow for FLAC and inexact for
    Opus: samples would depend on the block size.
    """

    def seekable(self) -> bool:
        return False


@contextlib.contextmanager
def _readable(source: Source) -> Iterator[str | bytes | IO[bytes]]:
    """What libsndfile opens: a regular file by its path, a copy of anything else."""
    if not isinstance(source, (str, os.PathLike)):
        with _seekable_copy(source) as copy:
            yield copy
        return
    path = Path(source)
    if path.suffix.lower() == ".raw":
        raise ValueError(f"{path}: audio without a header is not supported")
    with path.open("rb") as file:  # fails in the operating system's clear words, unlike libsndfile
        if not path.is_file():
            with _seekable_copy(file) as copy:
                yield copy
            return
        if os.fstat(file.fileno()).st_size == 0:  # to libsndfile that is an unknown format
            raise OSError(f"{path}: empty file")
    yield sound_path(path)


@contextlib.contextmanager
def _seekable_copy(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    import tempfile  # not at the top: start-up time

    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stream, copy)
        copy.seek(0)
        yield copy


def sound_path(path: Path) -> str | bytes:
    """A path as soundfile takes any: on POSIX it cannot encode a str of bytes that are no UTF-8."""
    return os.fsencode(path) if os.name == "posix" else str(path)


@contextlib.contextmanager
def sound_errors(name: str) -> Iterator[None]:
    """Turns libsndfile's errors into an OSError; an OSError without a file's name gets this one."""
    try:
        with naming(name):
            yield
    except soundfile.LibsndfileError as error:
        raise OSError(f"{name}: {error.error_string}") from None
