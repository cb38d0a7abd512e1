"""Audio out: 16-bit or float files, with the reference's rules for samples beyond full scale."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from encodec_fast.audio import Float32, check_samples, sound_errors, sound_path
from encodec_fast.output import OutputFile, Target, naming

Encoding = Literal["pcm16", "float32"]

# The reference keeps 16-bit output this far from full scale (spec 1.7).
PEAK_LIMIT = 0.99
_WAV_LIMIT = (1 << 32) - 4096  # bytes of samples whose size still fits a WAV header
_FORMATS = {".wav": "WAV", ".flac": "FLAC"}


class AudioWriter:
    """Writes float32 [channels, n] blocks to a .wav or .flac file, in constant memory.

    The file appears complete when the `with` block ends normally, or not at all (`OutputFile`); a
    stream as target gets a WAV. `encoding` "pcm16" clips samples to +-0.99; "float32" (WAV only)
    keeps them as they are. With `rescale` the whole is multiplied by min(0.99 / peak, 1) instead,
    which needs a temporary file of 4 bytes a sample. `peak` is the largest magnitude so far, before
    any of this. `length`, if known, is the number of samples per channel: beyond 4 GiB the file
    becomes an RF64. Raises ValueError for other endings, NaN and infinite samples, and a target
    that is neither a path nor a binary stream; OSError where it cannot be written.
    """

    def __init__(
        self,
        target: Target,
        sample_rate: int,
        channels: int,
        *,
        encoding: Encoding = "pcm16",
        rescale: bool = False,
        overwrite: bool = False,
        length: int = 0,
    ) -> None:
        self.peak = 0.0
        self._channels = channels
        self._encoding = encoding
        self._written = 0
        file_format = _file_format(target, encoding)
        self._output = OutputFile(target, overwrite)
        self._stack = contextlib.ExitStack()
        try:
            capacity = _WAV_LIMIT // (channels * (4 if encoding == "float32" else 2))
            if file_format == "WAV" and length > capacity:
                file_format = "RF64"
            self._capacity = capacity if file_format == "WAV" else None
            subtype = "FLOAT" if encoding == "float32" else "PCM_16"
            with sound_errors(self._output.name):
                path = sound_path(self._output.path)
                self._file = soundfile.SoundFile(
                    path, "w", sample_rate, channels, subtype, format=file_format
                )
            self._stack.callback(self._file.close)
            self._unscaled: IO[bytes] | None = None
            if rescale:
                import tempfile  # not at the top: start-up time

                # Closed by the stack, not by a `with` block here.
                self._unscaled = tempfile.TemporaryFile(dir=self._output.folder)  # noqa: SIM115
                self._stack.callback(self._unscaled.close)
        except BaseException:
            self._stack.close()
            self._output.discard()
            raise

    def write(self, block: Float32) -> None:
        """Appends float32 [channels, n]."""
        check_samples(block, self._output.name, self._written)
        self._written += block.shape[1]
        if self._capacity is not None and self._written > self._capacity:
            raise ValueError(f"{self._output.name}: longer than a WAV file may be")
        if block.size:
            self.peak = max(self.peak, float(np.abs(block).max()))
        if self._unscaled is not None:
            with naming(self._output.name):
                self._unscaled.write(block.T.tobytes())
        else:
            self._put(block.T)

    def __enter__(self) -> AudioWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._put_rescaled()
                with sound_errors(self._output.name):
                    self._stack.close()
                if self._encoding == "float32":
                    _erase_time(self._output.path)
                self._output.commit()
        finally:
            # After an error what becomes of the temporary files does not matter.
            with contextlib.suppress(soundfile.SoundFileError, OSError):
                self._stack.close()
            self._output.discard()

    def _put_rescaled(self) -> None:
        if self._unscaled is None:
            return
        with naming(self._output.name):
            self._unscaled.seek(0)  # writes what is still buffered
        gain = np.float32(1)
        if self.peak > PEAK_LIMIT:
            gain = np.float32(PEAK_LIMIT) / np.float32(self.peak)
        while data := self._unscaled.read(4 * self._channels * 65536):
            self._put(np.frombuffer(data, np.float32).reshape(-1, self._channels) * gain)

    def _put(self, frames: Float32) -> None:
        """Writes float32 [n, channels]."""
        samples: NDArray[Any] = frames
        if self._encoding == "pcm16":
            samples = pcm16(frames)
        with sound_errors(self._output.name):
            self._file.write(np.ascontiguousarray(samples))


def pcm16(samples: Float32) -> NDArray[np.int16]:
    """Samples as 16-bit integers, clipped at +-0.99 as the reference does."""
    # Not libsndfile's conversion, whose factor of 32767 is not the inverse of reading.
    limited = np.clip(samples, -np.float32(PEAK_LIMIT), np.float32(PEAK_LIMIT))
    rounded: NDArray[np.int16] = np.rint(limited * np.float32(32768)).astype(np.int16)
    return rounded


def _erase_time(path: Path) -> None:
    """Zeroes the time of writing that libsndfile puts into the PEAK chunk of float files.

    Equal audio makes equal files.
    """
    with path.open("rb+") as file:
        position = file.read(256).find(b"PEAK")  # stands before the samples
        if position >= 0:
            file.seek(position + 12)
            file.write(bytes(4))


def _file_format(target: Target, encoding: Encoding) -> str:
    if not isinstance(target, (str, os.PathLike)):
        return "WAV"
    path = Path(target)
    if path.is_fifo() or path.is_char_device():
        return "WAV"
    file_format = _FORMATS.get(path.suffix.lower())
    if file_format is None:
        raise ValueError(f"output {path}: expected a name that ends in .wav or .flac")
    if file_format == "FLAC" and encoding == "float32":
        raise ValueError(f"output {path}: FLAC has no float samples, use .wav")
    return file_format
