"""Codes of the training recordings for the entropy model: coded once, read as random sequences."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from encodec_fast.audio import AudioReader
from encodec_fast.codec import Codec
from encodec_fast.training.corpus import divide
from encodec_fast.training.lm_settings import CodeDataSettings
from encodec_fast.training.reading import opened_source, reason_of, state_of
from encodec_fast.training.sources import Recording

Float32 = NDArray[np.float32]
Codes = NDArray[np.uint16]
ENDED = -1  # in place of the codes after the end of a sequence
FROM_START = 0.25  # share of the sequences that begin where their recording does


class CodedRecording(NamedTuple):
    """A recording as codes uint16 [K, frames]: one array per segment, where a codec has those, else
    a single one. `seconds` is the recording's length."""

    name: str
    kind: str
    segments: list[Codes]
    seconds: float


class TrainingCodes(NamedTuple):
    """Recordings for training, as they are and varied, and for validation; and (name, reason) of
    those that cannot be used."""

    plain: list[CodedRecording]
    varied: list[CodedRecording]
    held_out: list[CodedRecording]
    skipped: list[tuple[str, str]]


def load_codes(settings: CodeDataSettings, codec: Codec, seed: int) -> TrainingCodes:
    """The codes of the recordings of `settings`, made where the cache lacks them.

    Recordings cut from the same original are held out together; those are never varied or mixed.
    Raises ValueError where no recording is left for training or for validation and for a file of
    codes that is damaged, OSError where a recording cannot be read for no fault of its own, and
    whatever `find_recordings` raises.
    """
    folder = Path(settings.cache)
    folder.mkdir(parents=True, exist_ok=True)
    parts, valid = divide(settings.train, settings.valid, judged=True)
    train = [recording for part in parts for recording in part]
    coder = _Coder(codec, folder, seed)
    plain, skipped = coder.code(train)
    judged, unusable = coder.code(valid)
    skipped += unusable
    for name, left in (("train", plain), ("valid", judged)):
        if not left:
            reason = "; the first: " + ": ".join(skipped[0]) if skipped else ""
            raise ValueError(f"{name}: expected at least one usable recording, found none{reason}")
    names = {recording.name for recording in plain}
    usable = [recording for recording in train if recording.name in names]
    varied: list[CodedRecording] = []
    for copy in range(1, settings.copies + 1):
        varied += coder.code(usable, copy)[0]
    return TrainingCodes(plain, varied, judged, skipped)


class _Coder:
    """Codes recordings, and keeps the codes in files that are named after all that they are of."""

    def __init__(self, codec: Codec, folder: Path, seed: int) -> None:
        self._codec = codec
        self._folder = folder
        self._seed = seed

    def code(
        self, recordings: Sequence[Recording], copy: int = 0
    ) -> tuple[list[CodedRecording], list[tuple[str, str]]]:
        """The usable ones coded, as they are (copy 0) or varied, and why the others are not."""
        key = [self._codec.program.hash, str(copy), str(self._seed) if copy else ""]
        key += [
            f"{found.path} {found.start} {found.size} {state_of(found)}" for found in recordings
        ]
        text = "\n".join(key).encode("utf-8", "surrogatepass")  # names may be any bytes
        digest = hashlib.sha256(text).hexdigest()[:16]
        path = self._folder / f"codes_{self._codec.name}_{digest}.npz"
        if not path.exists():
            self._make(path, recordings, copy)
        codes, lengths, counts, seconds, reasons = _stored(path, len(recordings))
        segments = iter(np.split(codes, np.cumsum(lengths)[:-1], axis=1))
        coded, skipped = [], []
        for recording, count, length, reason in zip(
            recordings, counts, seconds, reasons, strict=True
        ):
            if reason:
                skipped.append((recording.name, str(reason)))
                continue
            own = [next(segments) for _ in range(count)]
            name = recording.name + (f" (varied, {copy})" if copy else "")
            coded.append(CodedRecording(name, recording.kind, own, float(length)))
        return coded, skipped

    def _make(self, path: Path, recordings: Sequence[Recording], copy: int) -> None:
        segments: list[Codes] = [np.zeros((self._codec.n_codebooks, 0), np.uint16)]
        counts, seconds, reasons = [], [], []
        for number in range(len(recordings)):
            found: list[Codes] = []
            samples, reason = 0, ""
            try:
                wave = self._wave(recordings, number, copy)
                samples = wave.shape[1]
                found = self._codec.encode(wave, bandwidth=None).codes
            except (OSError, ValueError) as error:
                reason = reason_of(recordings[number], error)
            segments += found
            counts.append(len(found))
            seconds.append(samples / self._codec.sample_rate)
            reasons.append(reason)
        partial = path.with_suffix(".partial.npz")
        try:
            np.savez(
                partial,
                codes=np.concatenate(segments, axis=1),
                lengths=[segment.shape[1] for segment in segments[1:]],
                counts=counts,
                seconds=seconds,
                reasons=np.array(reasons, dtype=str),
            )
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _wave(self, recordings: Sequence[Recording], number: int, copy: int) -> Float32:
        wave = self._read(recordings[number])
        if not copy:
            return wave
        random = np.random.default_rng([self._seed, copy, number])
        other = None
        if random.random() < 0.25:
            other = self._read(recordings[int(random.integers(len(recordings)))])
        return vary(wave, other, self._codec.hop, random)

    def _read(self, recording: Recording) -> Float32:
        codec = self._codec
        with (
            opened_source(recording) as source,
            AudioReader(source, codec.sample_rate, codec.channels) as reader,
        ):
            wave = np.concatenate(list(reader.blocks()), axis=1)
        if not wave.any():
            raise ValueError("silent")
        return wave


def _stored(path: Path, recordings: int) -> list[NDArray[Any]]:
    """Codes, lengths of segments, and segments, seconds and reasons of recordings."""
    names = ("codes", "lengths", "counts", "seconds", "reasons")
    try:
        with np.load(path) as stored:
            found = [stored[name] for name in names]
        codes, lengths, *of_recordings = found
        if (
            any(len(part) != recordings for part in of_recordings)
            or of_recordings[0].sum() != len(lengths)
            or lengths.sum() != codes.shape[1]
        ):
            raise ValueError("other numbers of them")
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: expected the codes of {recordings} recordings, found {error}: remove it"
        ) from None
    return found


def vary(wave: Float32, other: Float32 | None, hop: int, random: np.random.Generator) -> Float32:
    """A recording [C, n] changed so that its codes become other ones, [C, m] within full scale.

    Half of them play up to 10 % faster or slower; `other` [C, any] is mixed in; all start up to a
    hop later and get another level (-12 to +6 dB, as far as nothing clips), sign and order of
    channels.
    """
    if random.random() < 0.5:
        wave = soxr.resample(wave.T, 1.0, random.uniform(0.9, 1.1)).T
    if other is not None:
        wave = wave + np.float32(random.uniform(0.2, 1)) * np.resize(other.T, wave.T.shape).T
    wave = wave[random.permutation(len(wave)), random.integers(min(hop, wave.shape[1])) :]
    gain = min(10 ** (random.uniform(-12, 6) / 20), 1 / max(float(np.abs(wave).max()), 1e-4))
    return np.ascontiguousarray(wave * np.float32(gain * random.choice([-1, 1])), np.float32)


class CodeSequences:
    """Random sequences of `length` frames at most out of coded recordings, by kind of sound.

    Each kind is drawn equally often, its segments in proportion to their length. Batches are a pure
    function of `seed` and their number.
    """

    def __init__(self, recordings: Sequence[CodedRecording], length: int, seed: int) -> None:
        kinds: dict[str, list[tuple[str, Codes]]] = {}
        for recording in recordings:
            own = kinds.setdefault(recording.kind, [])
            own += [(recording.name, part) for part in recording.segments if part.shape[1]]
        if not kinds or not all(kinds.values()):
            raise ValueError("codes: expected at least one recording with frames of each kind")
        self._kinds = list(kinds.values())
        longest = max(part.shape[1] for parts in self._kinds for _, part in parts)
        self._length = min(length, longest)
        self._seed = seed
        frames = [np.array([part.shape[1] for _, part in parts], float) for parts in self._kinds]
        self._ends = [np.cumsum(counts) / counts.sum() for counts in frames]

    def batch(self, size: int, number: int) -> tuple[Tensor, list[str]]:
        """Batch `number`: `size` sequences, int64 [size, K, frames], ENDED after the end of a
        segment; and where they come from, recording@frame."""
        random = np.random.default_rng([self._seed, number])
        codes, sources = zip(*(self._sequence(random) for _ in range(size)), strict=True)
        return torch.from_numpy(np.stack(codes)), list(sources)

    def _sequence(self, random: np.random.Generator) -> tuple[NDArray[np.int64], str]:
        kind = random.integers(len(self._kinds))
        parts, ends = self._kinds[kind], self._ends[kind]
        place = int(np.searchsorted(ends, random.random(), side="right"))
        name, codes = parts[min(place, len(parts) - 1)]
        start = 0
        if random.random() >= FROM_START:
            start = int(random.integers(max(1, codes.shape[1] - self._length + 1)))
        found = codes[:, start : start + self._length].astype(np.int64)
        missing = self._length - found.shape[1]
        filled = np.pad(found, ((0, 0), (0, missing)), constant_values=ENDED)
        return filled, f"{name}@{start}"


def segments_of(recordings: Sequence[CodedRecording]) -> Iterator[Codes]:
    """All segments of some recordings."""
    for recording in recordings:
        yield from recording.segments
