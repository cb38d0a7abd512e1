"""Recordings decoded once into one int16 file, whose crops cost next to nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from encodec_fast.audio import AudioReader
from encodec_fast.output import naming
from encodec_fast.training.reading import Crop, Float32, opened_source, reason_of, state_of
from encodec_fast.training.sources import Recording

_FULL_SCALE = 32767


class Entry(NamedTuple):
    """Where a recording is in the file: first frame and frames; its peak, full scale 1; or why it
    is not there ('' where it is)."""

    start: int
    frames: int
    peak: float
    reason: str


class RecordingCache:
    """The recordings in `folder` at one sample rate and with some channels, made if missing.

    The file's name is a hash of the recordings (names, sizes and times of change), so other
    recordings get another file. Samples are int16 [frames, channels], clipped at full scale.
    Raises ValueError where none of the recordings is usable and for a file that is damaged; OSError
    where the cache cannot be written, or a recording not be read for no fault of its own.
    """

    def __init__(
        self, recordings: Sequence[Recording], folder: Path, sample_rate: int, channels: int
    ) -> None:
        self.sample_rate, self.channels = sample_rate, channels
        folder.mkdir(parents=True, exist_ok=True)
        name = f"recordings_{sample_rate}_{channels}_{_hash(recordings)}"
        self.path = folder / f"{name}.s16"
        index = folder / f"{name}.json"
        _remove_abandoned(folder)
        if not (self.path.exists() and index.exists()):
            self._build(recordings, index)
        self.entries = _read_index(index)
        frames = sum(entry.frames for entry in self.entries)
        expected, found = frames * channels * 2, self.path.stat().st_size
        if len(self.entries) != len(recordings) or expected != found:
            raise ValueError(f"{self.path}: expected {expected} bytes, found {found}: remove it")
        self._samples: NDArray[np.int16] | None = None

    def _build(self, recordings: Sequence[Recording], index: Path) -> None:
        # Processes that start together each write a file of their own; the last one stays.
        with naming(str(self.path)), _partial_file(self.path) as (partial, target):
            entries: list[Entry] = []
            start = 0
            for recording in recordings:
                entry = self._append(recording, start, target)
                start += entry.frames
                target.truncate(start * self.channels * 2)
                target.seek(0, os.SEEK_END)
                entries.append(entry)
            target.flush()
            if all(entry.reason for entry in entries):  # nothing to keep: the next run tries again
                raise ValueError(
                    f"cache: expected a usable recording, found none in {len(entries)} "
                    f"(the last: {recordings[-1].name}: {entries[-1].reason})"
                )
            listed = partial.with_suffix(".json")
            listed.write_text(json.dumps(entries), encoding="utf-8")
            listed.replace(index)
            if sys.platform == "win32":
                target.close()  # an open file cannot be moved there
            partial.replace(self.path)

    def _append(self, recording: Recording, start: int, target: IO[bytes]) -> Entry:
        frames, peak = 0, 0.0
        blocks = self._decoded(recording)
        while True:
            try:
                block = next(blocks, None)
            except (OSError, ValueError) as error:
                return Entry(start, 0, 0.0, reason_of(recording, error))
            if block is None:
                break
            clipped = np.clip(block, -1, 1).T
            peak = max(peak, float(np.abs(clipped).max()))
            frames += len(clipped)
            # Not within the `try`: a full disk is the fault of no recording.
            target.write(np.rint(clipped * _FULL_SCALE).astype(np.int16).tobytes())
        if not peak > 0:
            return Entry(start, 0, 0.0, "silent")
        return Entry(start, frames, peak, "")

    def _decoded(self, recording: Recording) -> Iterator[Float32]:
        with (
            opened_source(recording) as source,
            AudioReader(source, self.sample_rate, self.channels) as reader,
        ):
            yield from reader.blocks()

    def read(self, number: int) -> NDArray[np.int16]:
        """Recording `number`, int16 [frames, channels], a view of the mapped file."""
        if self._samples is None:  # once in each process
            if self.path.stat().st_size == 0:
                return np.zeros((0, self.channels), np.int16)
            mapped = np.memmap(self.path, np.int16, "r")
            self._samples = mapped.reshape(-1, self.channels)
        entry = self.entries[number]
        return self._samples[entry.start : entry.start + entry.frames]

    def read_crop(self, number: int, samples: int, place: float) -> Crop:
        """`samples` of recording `number` from `place` (0 to 1 of the possible positions) on."""
        entry = self.entries[number]
        start = min(int(place * (entry.frames - samples + 1)), entry.frames - samples)
        crop = self.read(number)[start : start + samples].T
        wave = np.ascontiguousarray(crop, np.float32) / np.float32(_FULL_SCALE)
        return Crop(wave, start / self.sample_rate, entry.peak)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_samples": None}  # a worker maps the file itself


def _hash(recordings: Sequence[Recording]) -> str:
    digest = hashlib.sha256()
    for recording in recordings:
        text = f"{recording.name}\0{recording.start} {recording.size} {state_of(recording)}\n"
        digest.update(text.encode("utf-8", "surrogatepass"))  # names may be any bytes
    return digest.hexdigest()[:16]


def _read_index(path: Path) -> list[Entry]:
    try:
        entries = [Entry(*entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
        if any([type(part) for part in entry] != [int, int, float, str] for entry in entries):
            raise ValueError("other values than places, peaks and reasons")
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path}: expected the list of a cache, found {error}: remove it"
        ) from None
    return entries


@contextlib.contextmanager
def _partial_file(path: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """A new file beside `path` to write it to, removed if it is still there in the end."""
    while True:
        partial = path.with_suffix(f".{uuid.uuid4().hex}.partial")
        with partial.open("xb") as file:
            try:
                _lock(file)
            except BlockingIOError:
                continue  # another process takes it for abandoned, so short before it has its lock
            except OSError:
                pass  # no locks on this file system, and nothing is taken for abandoned
            if not partial.exists():
                continue  # it was taken for that
            try:
                yield partial, file
            finally:
                with contextlib.suppress(OSError):  # a full disk, told before
                    file.close()  # Windows removes no open file
                for left in (partial, partial.with_suffix(".json")):
                    left.unlink(missing_ok=True)
            return


def _remove_abandoned(folder: Path) -> None:
    """Remove the partial files of processes that are gone, which hold no lock any more."""
    for partial in folder.glob("recordings_*.partial"):
        with contextlib.suppress(OSError):
            if sys.platform == "win32":
                partial.unlink()  # refused for an open file
                continue
            with partial.open("r+b") as file:
                _lock(file)
                partial.unlink()


def _lock(file: IO[bytes]) -> None:
    """Lock a file until it is closed. Raises BlockingIOError where another process did, OSError
    where none can."""
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
