"""Training batches: which recordings are drawn and how, the same for a seed wherever it runs."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from encodec_fast.training.corpus import Skipped, divide
from encodec_fast.training.data_settings import DataSettings
from encodec_fast.training.items import Items
from encodec_fast.training.reading import Crop, Float32, read_crop, reason_of
from encodec_fast.training.sources import Recording

__all__ = ["Batch", "DataSettings", "open_batches", "prepare", "validation_clips"]

_PLACES = 8  # of a validation recording where a crop may be silent before it is left out


class Batch(NamedTuple):
    """waves: float32 [B, C, T]; kinds of the items, `a+b` for a sum; sources: file@second of each
    recording in an item, joined by ` + `; skipped: (recording, reason) of those found to be
    unusable since the last batch, each once."""

    waves: Tensor
    kinds: list[str]
    sources: list[str]
    skipped: Skipped


class _Batches(Dataset["Batch | OSError | ValueError"]):
    """One rank's part of each batch, by the number of the batch; or the error in making it, which
    DataLoader would turn into a worker's traceback."""

    def __init__(self, items: Items, batch: int, rank: int, world: int) -> None:
        self._items, self._batch = items, batch
        share = batch // world
        self._places = range(rank * share, (rank + 1) * share)

    def __getitem__(self, step: int) -> Batch | OSError | ValueError:
        try:
            items = [self._items[step * self._batch + place] for place in self._places]
        except (OSError, ValueError) as error:
            return error
        return Batch(
            torch.from_numpy(np.stack([item.wave for item in items])),
            [item.kind for item in items],
            [item.source for item in items],
            [entry for item in items for entry in item.skipped],
        )


def prepare(settings: DataSettings, sample_rate: int, channels: int, samples: int) -> None:
    """Make the cache of `settings`, where there is one to make; all else is left to `open_batches`,
    which takes the same arguments and raises the same errors.

    It takes long and ends at once when it is interrupted: call it before signals are handled.
    """
    if settings.cache is not None:
        Items(settings, sample_rate, channels, samples, seed=0)


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
    note: Callable[[str], None] | None = None,
) -> Iterator[Batch]:
    """Endless batches of `batch` items [C, samples], from number `start_step` on.

    Batch i of a seed is the same whatever the workers and start_step. Of each batch, rank r of
    `world` gets the r-th of `world` equal parts, joined they are the batch of one process. `note`
    is told which settings the recordings have no use for.
    Raises ValueError for settings that do not fit the recordings, a source with no usable
    recording, and (while drawing) where no usable crop is found; OSError for a source that does
    not exist.
    """
    if seed < 0 or start_step < 0:
        raise ValueError(f"seed, start_step: expected at least 0, found {seed}, {start_step}")
    if batch < 1 or batch % world:
        raise ValueError(f"batch: expected a multiple of {world} processes, found {batch}")
    items = Items(settings, sample_rate, channels, samples, seed)
    if note is not None:
        for text in items.notes:
            note(text)
    loader = DataLoader(
        _Batches(items, batch, rank, world),
        batch_size=None,
        sampler=itertools.count(start_step),
        num_workers=settings.workers,
        worker_init_fn=_ignore_signals if settings.workers else None,
        prefetch_factor=4 if settings.workers else None,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else it would draw from the trainer's random numbers
    )
    return _tell_once(loader, items.corpus.skipped)


def _ignore_signals(_worker: int) -> None:
    # A terminal and most schedulers signal all processes of a group. The one that trains ends its
    # workers when it is done; a worker that ended before it would be an error there.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _tell_once(
    loader: DataLoader[Batch | OSError | ValueError], skipped: Skipped
) -> Iterator[Batch]:
    told: set[str] = set()
    for found in loader:
        if isinstance(found, Exception):
            raise found
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
    _, recordings = divide(settings.train, settings.valid, judged=True)
    queues: dict[str, list[Recording]] = {}
    for place in random.permutation(len(recordings)):
        queues.setdefault(recordings[place].kind, []).append(recordings[place])
    clips: list[tuple[str, str, Float32]] = []
    reason = ""
    while len(clips) < count and any(queues.values()):
        for kind, queue in sorted(queues.items()):
            while queue:
                recording = queue.pop(0)
                crop = _audible_crop(
                    recording, sample_rate, channels, samples, settings.quietest, random
                )
                if isinstance(crop, str):
                    reason = f"{recording.name}: {crop}"
                else:
                    queue.append(recording)  # another part of it, when its turn comes again
                    clips.append((kind, f"{recording.name}@{crop.second:.5f}", crop.wave))
                    break
    if not clips:
        raise ValueError(
            f"valid: expected a recording of at least {samples / sample_rate:g} s, "
            f"found none among {len(recordings)} (the last: {reason}): name others in data.valid"
        )
    return clips[:count]


def _audible_crop(
    recording: Recording,
    sample_rate: int,
    channels: int,
    samples: int,
    quietest: float,
    random: np.random.Generator,
) -> Crop | str:
    """A crop, or why there is none."""
    for _ in range(_PLACES):
        try:
            crop = read_crop(recording, sample_rate, channels, samples, float(random.random()))
        except (OSError, ValueError) as error:
            return reason_of(recording, error)
        if float(np.square(crop.wave).mean()) >= quietest**2:
            return crop
    return "silent"
