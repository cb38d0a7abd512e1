"""The recordings of a run by kind, drawn in proportion to their length."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from encodec_fast.training.cache import RecordingCache
from encodec_fast.training.reading import Crop, read_crop, reason_of, seconds_of
from encodec_fast.training.sources import Recording, SourceSettings, find_recordings

Skipped = list[tuple[str, str]]
HELD_OUT = 16  # one in so many originals is kept for validation


def divide(
    train: Sequence[SourceSettings], valid: Sequence[SourceSettings], judged: bool
) -> tuple[list[list[Recording]], list[Recording]]:
    """The recordings of each source of `train` to train on, and all for validation.

    The latter are those of `valid`; where there are none, those of `train` that are held out (see
    `held_out`). Raises ValueError where they are needed, `judged`, and nothing can be held out, and
    whatever `find_recordings` raises.
    """
    parts = [find_recordings(source) for source in train]
    if valid:
        return parts, [found for source in valid for found in find_recordings(source)]
    listed = [recording for part in parts for recording in part]
    held = [
        recording
        for recording, out in zip(listed, held_out([found.name for found in listed]), strict=True)
        if out
    ]
    if judged and not held:
        raise ValueError(
            "valid: expected several originals, one of which could be held out; found "
            f"{len(listed)} recordings that are parts of a single one by their names "
            f"({listed[0].name}): name others in data.valid"
        )
    out = set(held)
    return [[recording for recording in part if recording not in out] for part in parts], held


def held_out(names: Sequence[str]) -> list[bool]:
    """Which recordings are for validation: every 16th original, with all that was cut from it
    (files of one folder whose names differ in a number of up to four digits at the end; the
    archives of a folder count as one). Of fewer originals it is the last; a single one is never
    held out."""
    originals = [_original(name) for name in names]
    order = {original: place for place, original in enumerate(dict.fromkeys(originals))}
    if len(order) == 1:
        return [False] * len(names)
    chosen = min(HELD_OUT // 2, len(order) - 1)
    return [order[original] % HELD_OUT == chosen for original in originals]


def _original(name: str) -> PurePosixPath:
    # The shards of a data set are filled regardless of what belongs together.
    path = PurePosixPath(re.sub(r"[^/]+\.tar:", "", name.replace("\\", "/"), flags=re.IGNORECASE))
    # Longer numbers are identifiers of recordings of their own.
    stem = re.sub(r"(?<!\d)_?\d{1,4}$", "", path.stem) or path.stem
    return path.with_name(stem)


class Corpus:
    """The usable recordings to train on, read from a cache where `folder` is one for it.

    train, valid: the sources (see `divide`). Recordings that cannot be read, are empty or shorter
    than a crop, or (seen with a cache) silent or not finite are in `skipped`, with the reason.
    Raises ValueError for a source without any usable recording and a crop that no recording is long
    enough for; OSError where one cannot be read for no fault of its own.
    """

    def __init__(
        self,
        train: Sequence[SourceSettings],
        valid: Sequence[SourceSettings],
        sample_rate: int,
        channels: int,
        samples: int,
        folder: str | None = None,
    ) -> None:
        self._format = (sample_rate, channels, samples)
        parts, _ = divide(train, valid, judged=False)
        self._recordings = [recording for part in parts for recording in part]
        self._cache: RecordingCache | None = None
        if folder is not None:
            self._cache = RecordingCache(self._recordings, Path(folder), sample_rate, channels)
        self.skipped: Skipped = []
        found: dict[str, list[tuple[int, float]]] = {}
        number = -1
        for source, part in zip(train, parts, strict=True):
            usable = False
            for recording in part:
                number += 1
                try:
                    seconds = self._seconds(number, usable)
                    usable = True
                except (OSError, ValueError) as error:
                    self.skipped.append((recording.name, reason_of(recording, error)))
                    continue
                found.setdefault(recording.kind, []).append((number, seconds))
            if part and not usable:  # of a small source all may be held out
                name, reason = self.skipped[-1]
                raise ValueError(
                    f"{source.path}: expected a usable recording, found none in {len(part)} "
                    f"(the last: {name}: {reason})"
                )
        self.seconds = {kind: sum(s for _, s in found[kind]) for kind in sorted(found)}
        self._numbers = {kind: [number for number, _ in part] for kind, part in found.items()}
        self._ends = {kind: np.cumsum([s for _, s in part]) for kind, part in found.items()}

    def _seconds(self, number: int, trusted: bool) -> float:
        """The length of a recording (see `seconds_of`). Raises OSError or ValueError for one that
        is not usable."""
        sample_rate, _, samples = self._format
        if self._cache is None:
            seconds = seconds_of(self._recordings[number], trusted)
        else:
            entry = self._cache.entries[number]
            if entry.reason:
                raise ValueError(entry.reason)
            seconds = entry.frames / sample_rate
        if seconds * sample_rate < samples:
            raise ValueError(
                f"too short: expected at least {samples / sample_rate:g} s, found {seconds:g} s"
            )
        return seconds

    def name(self, number: int) -> str:
        """What recording `number` is called."""
        return self._recordings[number].name

    def draw(self, kind: str, random: np.random.Generator) -> int:
        """The number of a recording of `kind`, in proportion to its length."""
        ends = self._ends[kind]
        place = int(np.searchsorted(ends, random.random() * ends[-1], side="right"))
        return self._numbers[kind][min(place, len(ends) - 1)]

    def read_crop(self, number: int, place: float) -> Crop:
        """A crop of recording `number` from `place` (0 to 1 of the possible positions) on.

        Raises OSError or ValueError for one that cannot be read or used.
        """
        sample_rate, channels, samples = self._format
        if self._cache is not None:
            return self._cache.read_crop(number, samples, place)
        return read_crop(self._recordings[number], sample_rate, channels, samples, place)
