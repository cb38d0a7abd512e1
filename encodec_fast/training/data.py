"""Training batches: which recordings are drawn and how, the same for a seed wherever it runs."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from encodec_fast.training.corpus import Corpus, Skipped, validation_recordings
from encodec_fast.training.mixing import (
    MixingStrategy,
    ReverbSettings,
    make_impulse_response,
    mix,
    reverberate,
)
from encodec_fast.training.reading import Crop, Float32, read_crop
from encodec_fast.training.sources import Recording, SourceSettings

_TRIES = 64  # draws without a usable crop before an item is given up
_GAIN_TRIES = 32  # gains before an item whose sum clips is drawn anew


@dataclass(frozen=True)
class DataSettings:
    """What a run trains on (paper 4.1 and A.1 for the mixing, levels and reverberation).

    train: the sources. valid: those for validation; where there are none, one in 16 originals of
    `train` is held out for it. mixing: the strategies, whose probabilities add up to 1.
    kind_weights: how often each kind is drawn where a strategy leaves several (missing: never);
    without weights it is in proportion to the seconds of each kind to the power
    1 / kind_temperature: 1 by size, large values all kinds alike.
    normalise: bring each recording to a peak of full scale before the gain. gain_db: the range
    of the gain of each recording. quietest: crops below this root mean square are drawn anew.
    cache: a folder where all recordings are decoded once, for crops at next to no cost; None reads
    the files. workers: processes that make batches ahead; 0 makes them in this one.
    """

    train: tuple[SourceSettings, ...]
    valid: tuple[SourceSettings, ...] = ()
    mixing: tuple[MixingStrategy, ...] = (MixingStrategy(),)
    kind_weights: dict[str, float] = field(default_factory=dict)
    kind_temperature: float = 1.0
    normalise: bool = True
    gain_db: tuple[float, ...] = (-10.0, 6.0)
    quietest: float = 2e-3
    reverb: ReverbSettings = ReverbSettings()
    cache: str | None = None
    workers: int = 0

    def __post_init__(self) -> None:
        if not self.train:
            raise ValueError("train: expected at least one source, found none")
        total = sum(strategy.probability for strategy in self.mixing)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"mixing: expected probabilities that add up to 1, found {total:g}")
        for kind, weight in self.kind_weights.items():
            if not 0 <= weight < float("inf"):
                raise ValueError(f"kind_weights.{kind}: expected at least 0, found {weight}")
        if not self.kind_temperature > 0:
            raise ValueError(f"kind_temperature: expected above 0, found {self.kind_temperature}")
        if self.kind_weights and self.kind_temperature != 1:
            raise ValueError("kind_temperature: expected 1 beside kind_weights, which replace it")
        if len(self.gain_db) != 2 or not -60 <= self.gain_db[0] <= self.gain_db[1] <= 60:
            raise ValueError(f"gain_db: expected two rising from -60 to 60, found {self.gain_db}")
        if not 0 <= self.quietest < 1:
            raise ValueError(f"quietest: expected 0 to below 1, found {self.quietest}")
        if not 0 <= self.workers <= 256:
            raise ValueError(f"workers: expected 0 to 256, found {self.workers}")


class Batch(NamedTuple):
    """waves: float32 [B, C, T]; kinds of the items, `a+b` for a sum; sources: file@second of each
    recording in an item, joined by ` + `; skipped: (recording, reason) of those found to be
    unusable since the last batch, each once."""

    waves: Tensor
    kinds: list[str]
    sources: list[str]
    skipped: Skipped


class Item(NamedTuple):
    """One training item: wave float32 [C, T], and what a Batch says about it."""

    wave: Float32
    kind: str
    source: str
    skipped: Skipped


class Items:
    """Training items by number: item n of a seed is the same in every process."""

    def __init__(
        self, settings: DataSettings, sample_rate: int, channels: int, samples: int, seed: int
    ) -> None:
        self._settings, self._seed = settings, seed
        self._sample_rate, self._channels = sample_rate, channels
        self.corpus = Corpus(
            settings.train, sample_rate, channels, samples, settings.cache, not settings.valid
        )
        self._weights = self._kind_weights()
        self._chances = [self._chances_of(strategy) for strategy in settings.mixing]
        self._rooms: Corpus | None = None

    def _kind_weights(self) -> dict[str, float]:
        """How often each kind is drawn, relative to the others."""
        settings, seconds = self._settings, self.corpus.seconds
        if not settings.kind_weights:
            return {kind: s ** (1 / settings.kind_temperature) for kind, s in seconds.items()}
        for kind in settings.kind_weights:
            if kind not in seconds:
                raise ValueError(f"kind_weights: expected {', '.join(seconds)}, found {kind!r}")
        return {kind: settings.kind_weights.get(kind, 0.0) for kind in seconds}

    def _chances_of(self, strategy: MixingStrategy) -> tuple[list[str], NDArray[np.float64]]:
        """The kinds that a strategy draws from, and how likely each is."""
        for kind in strategy.kinds:
            if kind not in self._weights:
                known = ", ".join(self._weights)
                raise ValueError(f"mixing: expected kinds of {known}, found {kind!r}")
        kinds = [kind for kind in self._weights if not strategy.kinds or kind in strategy.kinds]
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
        probabilities = [strategy.probability for strategy in settings.mixing]
        choice = int(random.choice(len(probabilities), p=np.array(probabilities)))
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
            waves.append(wave)
            sources.append(f"{self.corpus.name(number)}@{crop.second:.3f}")
        dry = len(drawn) == 1 and drawn[0] in settings.reverb.dry_kinds
        if random.random() < settings.reverb.probability and not dry:
            response = self._room(random)
            waves = [reverberate(wave, response) for wave in waves]
        total = mix(waves, settings.gain_db, _GAIN_TRIES, random)
        if total is None:
            return None
        return Item(total, "+".join(sorted(drawn)), " + ".join(sources), skipped)

    def _room(self, random: np.random.Generator) -> Float32:
        return make_impulse_response(
            self._settings.reverb, self._sample_rate, self._channels, random
        )


class _Batches(Dataset[Batch]):
    """One rank's part of each batch, by the number of the batch."""

    def __init__(self, items: Items, batch: int, rank: int, world: int) -> None:
        self._items, self._batch = items, batch
        share = batch // world
        self._places = range(rank * share, (rank + 1) * share)

    def __getitem__(self, step: int) -> Batch:
        items = [self._items[step * self._batch + place] for place in self._places]
        return Batch(
            torch.from_numpy(np.stack([item.wave for item in items])),
            [item.kind for item in items],
            [item.source for item in items],
            [entry for item in items for entry in item.skipped],
        )


def open_batches(
    settings: DataSettings,
    sample_rate: int,
    channels: int,
    samples: int,
    batch: int,
    seed: int,
    start_step: int = 0,
    rank: int = 0,
    world: int = 1,
) -> Iterator[Batch]:
    """Endless batches of `batch` items [C, samples], from number `start_step` on.

    Batch i of a seed is the same whatever the workers and start_step. Of each batch, rank r of
    `world` gets the r-th of `world` equal parts, joined they are the batch of one process.
    Raises ValueError for settings that do not fit the recordings, a source with no usable
    recording, and (while drawing) where no usable crop is found; OSError for a source that does
    not exist.
    """
    if seed < 0 or start_step < 0:
        raise ValueError(f"seed, start_step: expected at least 0, found {seed}, {start_step}")
    if batch < 1 or batch % world:
        raise ValueError(f"batch: expected a multiple of {world} processes, found {batch}")
    items = Items(settings, sample_rate, channels, samples, seed)
    loader = DataLoader(
        _Batches(items, batch, rank, world),
        batch_size=None,
        sampler=itertools.count(start_step),
        num_workers=settings.workers,
        prefetch_factor=4 if settings.workers else None,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else it would draw from the trainer's random numbers
    )
    return _tell_once(loader, items.corpus.skipped)


def _tell_once(loader: DataLoader[Batch], skipped: Skipped) -> Iterator[Batch]:
    told: set[str] = set()
    for found in loader:
        news = dict(reversed([*skipped, *found.skipped]))
        yield found._replace(skipped=[pair for pair in news.items() if pair[0] not in told])
        told |= news.keys()
        skipped = []


def validation_clips(
    settings: DataSettings, sample_rate: int, channels: int, samples: int, count: int
) -> list[tuple[str, str, Float32]]:
    """Up to `count` fixed crops of recordings that are not trained on: (kind, file@second, wave
    float32 [C, samples]), as recorded, all kinds in turn.

    Raises ValueError where no recording is usable, OSError where a source does not exist.
    """
    random = np.random.default_rng(0)
    recordings = validation_recordings(settings.train, settings.valid)
    queues: dict[str, list[Recording]] = {}
    for place in random.permutation(len(recordings)):
        queues.setdefault(recordings[place].kind, []).append(recordings[place])
    clips: list[tuple[str, str, Float32]] = []
    while len(clips) < count and any(queues.values()):
        for kind, queue in sorted(queues.items()):
            while queue:
                recording = queue.pop(0)
                crop = _audible_crop(
                    recording, sample_rate, channels, samples, settings.quietest, random
                )
                if crop is not None:
                    queue.append(recording)  # another part of it, when its turn comes again
                    clips.append((kind, f"{recording.name}@{crop.second:.3f}", crop.wave))
                    break
    if not clips:
        raise ValueError(
            f"valid: expected a recording of at least {samples / sample_rate:g} s, "
            f"found none among {len(recordings)}"
        )
    return clips[:count]


def _audible_crop(
    recording: Recording,
    sample_rate: int,
    channels: int,
    samples: int,
    quietest: float,
    random: np.random.Generator,
) -> Crop | None:
    for _ in range(_TRIES // 8):
        try:
            crop = read_crop(recording, sample_rate, channels, samples, float(random.random()))
        except (OSError, ValueError):
            return None
        if float(np.square(crop.wave).mean()) >= quietest**2:
            return crop
    return None


KINDS = ("speech", "music", "sound")
SHARE_ALIKE = ("GPL", "CC-BY-SA")


def select(audio: Path) -> Iterator[tuple[Path, str]]:
    """The training files under `audio` and their kinds, after its MANIFEST.csv.

    Recordings under share-alike licences are left out, so that the weights carry no such terms.
    """
    with (audio / "MANIFEST.csv").open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            share_alike = any(name in row["licence"] for name in SHARE_ALIKE)
            if row["split"] == "train" and row["kind"] in KINDS and not share_alike:
                yield audio / row["path"], row["kind"]


def decode(path: Path, sample_rate: int) -> NDArray[np.int16]:
    """A recording as int16 mono at `sample_rate`: mean over channels, then resampled."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono: NDArray[np.float32] = samples.mean(axis=1)
    if rate != sample_rate:
        mono = soxr.resample(mono, rate, sample_rate)
    clipped: NDArray[np.int16] = np.clip(np.rint(mono * 32767), -32767, 32767).astype(np.int16)
    return clipped


def build_cache(audio: Path, cache: Path, sample_rate: int) -> None:
    """Decode all training files into `cache` (int16 samples) and `cache`.json (where they are)."""
    entries, position = [], 0
    partial = cache.with_suffix(".partial")
    with partial.open("wb") as target:
        for path, kind in select(audio):
            samples = decode(path, sample_rate)
            entries.append({"kind": kind, "start": position, "length": len(samples)})
            position += len(samples)
            samples.tofile(target)
    if not entries:
        raise ValueError(f"{audio / 'MANIFEST.csv'} lists no training recordings")
    Path(f"{cache}.json").write_text(json.dumps({"sample_rate": sample_rate, "files": entries}))
    partial.replace(cache)
