"""The recordings of a run by kind, drawn in proportion to their length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from encodec_fast.training.cache import RecordingCache
from encodec_fast.training.reading import Crop, read_crop, seconds_of
from encodec_fast.training.sources import Recording, SourceSettings, find_recordings, held_out

Skipped = list[tuple[str, str]]


class Corpus:
    """The usable recordings of some sources, read from a cache where `folder` is one for it.

    hold_out: leave out what `validation_recordings` keeps. Recordings that cannot be read, are
    empty or shorter than a crop, or (seen with a cache) silent or not finite are in `skipped`, with
    the reason. Raises ValueError for a source without any usable recording and a crop that no
    recording is long enough for.
    """

    def __init__(
        self,
        sources: Sequence[SourceSettings],
        sample_rate: int,
        channels: int,
        samples: int,
        folder: str | None = None,
        hold_out: bool = False,
    ) -> None:
        self._format = (sample_rate, channels, samples)
        listed = [find_recordings(source) for source in sources]
        self._recordings = [recording for part in listed for recording in part]
        self._cache: RecordingCache | None = None
        if folder is not None:
            self._cache = RecordingCache(self._recordings, Path(folder), sample_rate, channels)
        held = held_out([recording.name for recording in self._recordings])
        self.skipped: Skipped = []
        found: dict[str, list[tuple[int, float]]] = {}
        number = -1
        for source, part in zip(sources, listed, strict=True):
            usable = False
            for recording in part:
                number += 1
                try:
                    seconds = self._seconds(number, usable)
                    usable = True
                except (OSError, ValueError) as error:
                    self.skipped.append((recording.name, str(error)))
                    continue
                if not (hold_out and held[number]):
                    found.setdefault(recording.kind, []).append((number, seconds))
            if not usable:
                name, reason = self.skipped[-1]
                raise ValueError(
                    f"{source.path}: expected a usable recording, found none in {len(part)} "
                    f"(the last: {name}: {reason})"
                )
        if not found:
            raise ValueError("data: expected recordings beside those held out for validation")
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


def validation_recordings(
    train: Sequence[SourceSettings], valid: Sequence[SourceSettings]
) -> list[Recording]:
    """The recordings of `valid`, or where there are none those of `train` that are held out."""
    recordings = [found for source in valid or train for found in find_recordings(source)]
    if valid:
        return recordings
    held = held_out([recording.name for recording in recordings])
    return [recording for recording, out in zip(recordings, held, strict=True) if out]
