"""Crops of recordings of any format, rate and channels, without decoding more than they need."""

from __future__ import annotations

import contextlib
import errno
import functools
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from encodec_fast.audio import check_samples, convert_audio, sound_errors, sound_path
from encodec_fast.output import naming
from encodec_fast.sources import Window
from encodec_fast.training.sources import Recording

Float32 = NDArray[np.float32]
_MARGIN = 256  # frames beside a crop that the resampler needs to settle
_EXCERPTS = 8  # of a second each, evenly spread: what the level of a long recording is taken from
# Errors that tell of one file. All others are the machine's: a full disk, a device that fails, too
# many open files, memory that is used up.
_OF_THE_FILE = (
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP,
    errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO,
)  # fmt: skip
_NO_LENGTH = 1 << 50  # libsndfile gives the largest integer where the header has none


class Crop(NamedTuple):
    """wave: float32 [C, samples]; second: where it starts in its recording; peak: the largest
    absolute sample of the whole recording (of excerpts of a long one), full scale 1."""

    wave: Float32
    second: float
    peak: float


@contextlib.contextmanager
def opened_source(recording: Recording) -> Iterator[Path | IO[bytes]]:
    """What a recording is read from: the path of its file, or its part of an archive."""
    path = Path(recording.path)
    if recording.start is None:
        yield path
        return
    with path.open("rb") as file:
        yield Window(file, recording.start, recording.size)  # type: ignore[misc]


def reason_of(recording: Recording, error: OSError | ValueError) -> str:
    """Why a recording cannot be used, from the error that reading it raised.

    Raises OSError instead where that is no fault of its file, which may well be read the next time.
    """
    found: Exception = error
    if isinstance(error, OSError) and error.errno is None:
        # libsndfile's, to which what cannot be read is no audio: the operating system knows better.
        try:
            with naming(recording.name), opened_source(recording) as source:
                _read_through(source)
        except OSError as told:
            found = told
    if isinstance(found, OSError) and found.errno not in (None, *_OF_THE_FILE):
        raise found
    return str(error) or type(error).__name__


def _read_through(source: Path | IO[bytes]) -> None:
    if isinstance(source, Path):
        with source.open("rb") as file:
            _read_through(file)
        return
    while source.read(1 << 20):
        pass


def state_of(recording: Recording) -> str:
    """Changes with a recording's file: its size and time of change."""
    try:
        status = Path(recording.path).stat()
    except (OSError, ValueError):  # ValueError: no path at all
        return "missing"
    if not os.access(recording.path, os.R_OK):
        return "unreadable"
    return f"{status.st_size} {status.st_mtime_ns}"


@contextlib.contextmanager
def _opened(recording: Recording) -> Iterator[Any]:
    with sound_errors(recording.name), opened_source(recording) as source:
        if isinstance(source, Path):
            if source.suffix.lower() == ".raw":
                raise ValueError("audio without a header is not supported")
            with source.open("rb") as file:  # fails in the operating system's clear words
                if os.fstat(file.fileno()).st_size == 0:
                    raise OSError("empty file")
        stream = sound_path(source) if isinstance(source, Path) else source
        with soundfile.SoundFile(stream) as sound:
            if not 0 < sound.frames < _NO_LENGTH:
                found = "no audio" if sound.frames <= 0 else "a header without a length"
                raise ValueError(f"expected a recording with samples, found {found}")
            yield sound


def seconds_of(recording: Recording, trusted: bool) -> float:
    """The length of a recording: that of its manifest where it is `trusted` and states one, which
    spares opening a file, else that of the file's header.

    Raises OSError or ValueError for a file that is missing or empty, no audio, or of no known
    length.
    """
    if trusted and recording.seconds is not None:
        if Path(recording.path).stat().st_size == 0:
            raise ValueError("empty file")
        return recording.seconds
    with _opened(recording) as sound:
        return float(sound.frames / sound.samplerate)


def read_crop(
    recording: Recording, sample_rate: int, channels: int, samples: int, place: float
) -> Crop:
    """`samples` of a recording at `sample_rate` Hz and with `channels`, from `place` of it on.

    place: 0 to 1, of the positions that are possible. Channels are converted as `convert_audio`
    does: mono is the mean, stereo of a mono recording repeats it. Raises OSError or ValueError for
    a file that cannot be read, is too short or silent, or whose crop is not finite.
    """
    with _opened(recording) as sound:
        rate: int = sound.samplerate
        needed = math.ceil(samples * rate / sample_rate)
        if sound.frames < needed:
            raise ValueError(
                f"too short: expected at least {samples / sample_rate:g} s, "
                f"found {sound.frames / rate:g} s"
            )
        start = min(int(place * (sound.frames - needed + 1)), sound.frames - needed)
        before = min(start, _MARGIN)
        frames = min(before + needed + _MARGIN, sound.frames - start + before)
        block = _read(sound, start - before, frames)
    wave = convert_audio(block, rate, sample_rate, channels)
    dropped = round(before * sample_rate / rate)
    wave = np.ascontiguousarray(wave[:, dropped : dropped + samples])
    if wave.shape[1] < samples:  # the last sample of the recording, rounded away
        wave = np.pad(wave, ((0, 0), (0, samples - wave.shape[1])))
    check_samples(wave, "crop")
    peak = recording.peak if recording.peak is not None else _peak(recording)
    if not peak > 0:
        raise ValueError("silent")
    return Crop(wave, start / rate, peak)


def read_beginning(
    recording: Recording, sample_rate: int, channels: int, seconds: float
) -> Float32:
    """A recording, of a longer one the first `seconds`: float32 [channels, n]. Raises OSError or
    ValueError for a file that cannot be read or is not finite."""
    with _opened(recording) as sound:
        rate: int = sound.samplerate
        block = _read(sound, 0, min(sound.frames, math.ceil(seconds * rate)))
    return convert_audio(block, rate, sample_rate, channels)


def _read(sound: Any, start: int, frames: int) -> Float32:
    """Frames of an open file, float32 [channels, frames]."""
    sound.seek(start)
    block: Float32 = sound.read(frames, dtype="float32", always_2d=True).T
    if block.shape[1] < frames:
        found = start + block.shape[1]
        raise ValueError(f"truncated: expected {sound.frames} frames, found {found}")
    check_samples(block, "recording", start)
    return block


@functools.lru_cache(maxsize=1 << 16)
def _peak(recording: Recording) -> float:
    with _opened(recording) as sound:
        length = min(sound.samplerate, sound.frames)
        count = min(_EXCERPTS, -(-sound.frames // length))
        starts = np.linspace(0, sound.frames - length, count).astype(int)
        return max(float(np.abs(_read(sound, int(start), length)).max()) for start in starts)
