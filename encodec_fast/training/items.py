"""Training items: which recordings are drawn, and what becomes of them (paper 4.1 and A.1)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from encodec_fast.training.corpus import Corpus, Skipped
from encodec_fast.training.data_settings import LONGEST_RESPONSE, DataSettings, MixingStrategy
from encodec_fast.training.mixing import make_impulse_response, mix, pan, reverberate
from encodec_fast.training.reading import Float32, read_beginning
from encodec_fast.training.sources import SourceSettings, find_recordings

_TRIES = 64  # draws without a usable crop before an item is given up
_GAIN_TRIES = 32  # gains before an item whose sum clips is drawn anew


class Item(NamedTuple):
    """One training item: wave float32 [C, T], and what a Batch says about it."""

    wave: Float32
    kind: str
    source: str
    skipped: Skipped


class Items:
    """Training items by number: item n of a seed is the same in every process. `notes` tell which
    of the settings these recordings have no use for."""

    def __init__(
        self, settings: DataSettings, sample_rate: int, channels: int, samples: int, seed: int
    ) -> None:
        self._settings, self._seed = settings, seed
        self._sample_rate, self._channels = sample_rate, channels
        self.corpus = Corpus(
            settings.train, settings.valid, sample_rate, channels, samples, settings.cache
        )
        self.notes: list[str] = []
        self._note_absent("kind_weights", settings.kind_weights)
        self._note_absent("mixing", [kind for each in settings.mixing for kind in each.kinds])
        self._weights = self._kind_weights()
        self._chances = [self._chances_of(strategy) for strategy in settings.mixing]
        probabilities = np.array([strategy.probability for strategy in settings.mixing])
        self._probabilities = probabilities / probabilities.sum()
        if settings.pan and channels != 2:
            raise ValueError(f"pan: expected 0 for {channels} channels, found {settings.pan}")
        rooms = settings.reverb.folder if settings.reverb.probability else None
        self._rooms = [] if rooms is None else find_recordings(SourceSettings(rooms))

    def _kind_weights(self) -> dict[str, float]:
        """How often each kind is drawn, relative to the others."""
        settings, seconds = self._settings, self.corpus.seconds
        if not settings.kind_weights:
            return {kind: s ** (1 / settings.kind_temperature) for kind, s in seconds.items()}
        if not settings.kind_weights.keys() & seconds.keys():
            return dict(seconds)
        return {kind: settings.kind_weights.get(kind, 0.0) for kind in seconds}

    def _note_absent(self, name: str, kinds: Iterable[str]) -> None:
        """Note which of `kinds`, named by the setting `name`, there are no recordings of. Raises
        ValueError for one that another kind's name is like."""
        known, named = self.corpus.seconds, dict.fromkeys(kinds)
        absent = [kind for kind in named if kind not in known]
        for kind in absent:
            for near in difflib.get_close_matches(kind, [k for k in known if k not in named], 1):
                raise ValueError(f"{name}: no recordings of {kind!r}: did you mean {near}?")
        if absent:
            found = ", ".join(known)
            self.notes.append(f"{name}: no recordings of {', '.join(absent)}: found {found}")

    def _chances_of(self, strategy: MixingStrategy) -> tuple[list[str], NDArray[np.float64]]:
        """The kinds that a strategy draws from, and how likely each is."""
        kinds = [kind for kind in self._weights if kind in strategy.kinds] or [*self._weights]
        weights = np.array([self._weights[kind] for kind in kinds])
        if not weights.sum() > 0:
            raise ValueError(f"kind_weights: expected one above 0 among {', '.join(kinds)}")
        return kinds, weights / weights.sum()

    def __getitem__(self, number: int) -> Item:
        """Raises ValueError where many draws find nothing usable."""
        random = np.random.default_rng([self._seed, number])
        skipped: Skipped = []
        for _ in range(_TRIES):
            item = self._draw(random, skipped)
            if item is not None:
                return item
        last = f" (the last: {': '.join(skipped[-1])})" if skipped else ""
        raise ValueError(f"data: found nothing usable in {_TRIES} draws{last}")

    def _draw(self, random: np.random.Generator, skipped: Skipped) -> Item | None:
        """One item, or None where one of its recordings or their sum is not usable."""
        settings = self._settings
        choice = int(random.choice(len(self._probabilities), p=self._probabilities))
        kinds, chances = self._chances[choice]
        drawn = [
            kinds[int(random.choice(len(kinds), p=chances))]
            for _ in range(settings.mixing[choice].sources)
        ]
        waves, sources = [], []
        for kind in drawn:
            number, place = self.corpus.draw(kind, random), float(random.random())
            try:
                crop = self.corpus.read_crop(number, place)
            except (OSError, ValueError) as error:
                skipped.append((self.corpus.name(number), str(error)))
                return None
            wave = crop.wave / np.float32(crop.peak) if settings.normalise else crop.wave
            if float(np.square(wave).mean()) < settings.quietest**2:
                return None
            if random.random() < settings.pan:
                wave = pan(wave, random)
            waves.append(wave)
            sources.append(f"{self.corpus.name(number)}@{crop.second:.5f}")
        dry = len(drawn) == 1 and drawn[0] in settings.reverb.dry_kinds
        if random.random() < settings.reverb.probability and not dry:
            room = self._room(random, skipped)
            if room is None:
                return None
            waves = [reverberate(wave, room) for wave in waves]
        total = mix(waves, settings.gain_db, _GAIN_TRIES, random)
        if total is None:
            return None
        return Item(total, "+".join(sorted(drawn)), " + ".join(sources), skipped)

    def _room(self, random: np.random.Generator, skipped: Skipped) -> Float32 | None:
        """An impulse response, or None where the recorded one that was drawn is not usable."""
        if not self._rooms:
            return make_impulse_response(
                self._settings.reverb, self._sample_rate, self._channels, random
            )
        chosen = self._rooms[int(random.integers(len(self._rooms)))]
        try:
            room = read_beginning(chosen, self._sample_rate, self._channels, LONGEST_RESPONSE)
            if not room.any():
                raise ValueError("silent")
        except (OSError, ValueError) as error:
            skipped.append((chosen.name, str(error)))
            return None
        return room
