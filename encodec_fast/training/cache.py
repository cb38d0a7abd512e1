"""Recordings decoded once into one int16 file, whose crops cost next to nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from encodec_fast.audio import AudioReader
from encodec_fast.training.reading import Crop, opened_source
from encodec_fast.training.sources import Recording

_FULL_SCALE = 32767
_DISK = (errno.ENOSPC, errno.EDQUOT)  # full: the fault of no recording


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
    """

    def __init__(
        self, recordings: Sequence[Recording], folder: Path, sample_rate: int, channels: int
    ) -> None:
        self.sample_rate, self.channels = sample_rate, channels
        folder.mkdir(parents=True, exist_ok=True)
        name = f"recordings_{sample_rate}_{channels}_{_hash(recordings)}"
        self.path = folder / f"{name}.s16"
        index = folder / f"{name}.json"
        if not (self.path.exists() and index.exists()):
            self._build(recordings, index)
        self.entries = [Entry(*entry) for entry in json.loads(index.read_text(encoding="utf-8"))]
        frames = sum(entry.frames for entry in self.entries)
        expected, found = frames * channels * 2, self.path.stat().st_size
        if len(self.entries) != len(recordings) or expected != found:
            raise ValueError(f"{self.path}: expected {expected} bytes, found {found}: remove it")
        self._samples: NDArray[np.int16] | None = None

    def _build(self, recordings: Sequence[Recording], index: Path) -> None:
        # Processes that start together each write a file of their own; the last one stays.
        partial = self.path.with_suffix(f".{uuid.uuid4().hex}.partial")
        try:
            with partial.open("wb") as target:
                entries: list[Entry] = []
                start = 0
                for recording in recordings:
                    entry = self._append(recording, start, lambda x: x.tofile(target))
                    start += entry.frames
                    target.truncate(start * self.channels * 2)
                    target.seek(0, os.SEEK_END)
                    entries.append(entry)
            if all(entry.reason for entry in entries):  # nothing to keep: the next run tries again
                raise ValueError(
                    f"cache: expected a usable recording, found none in {len(entries)} "
                    f"(the last: {recordings[-1].name}: {entries[-1].reason})"
                )
            listed = partial.with_suffix(".json")
            listed.write_text(json.dumps(entries), encoding="utf-8")
            listed.replace(index)
            partial.replace(self.path)
        finally:
            partial.unlink(missing_ok=True)

    def _append(
        self, recording: Recording, start: int, write: Callable[[NDArray[np.int16]], None]
    ) -> Entry:
        frames, peak = 0, 0.0
        try:
            with (
                opened_source(recording) as source,
                AudioReader(source, self.sample_rate, self.channels) as reader,
            ):
                for block in reader.blocks():
                    clipped = np.clip(block, -1, 1).T
                    peak = max(peak, float(np.abs(clipped).max()))
                    frames += len(clipped)
                    write(np.ascontiguousarray(np.rint(clipped * _FULL_SCALE).astype(np.int16)))
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in _DISK:
                raise
            return Entry(start, 0, 0.0, str(error))
        if not peak > 0:
            return Entry(start, 0, 0.0, "silent")
        return Entry(start, frames, peak, "")

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
        try:
            status = Path(recording.path).stat()
            seen = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            seen = "missing"
        digest.update(f"{recording.name}\0{recording.start} {recording.size} {seen}\n".encode())
    return digest.hexdigest()[:16]
