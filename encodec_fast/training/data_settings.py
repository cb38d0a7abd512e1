"""The settings of training data: sources, how they are mixed, levels, rooms, cache."""

from __future__ import annotations

from dataclasses import dataclass, field

from encodec_fast.training.sources import SourceSettings

LONGEST_RESPONSE = 10.0  # seconds of an impulse response that count


@dataclass(frozen=True)
class MixingStrategy:
    """With `probability` an item is the sum of `sources` recordings, each of one of `kinds` (of any
    kind where none is named, or there are recordings of none)."""

    probability: float = 1.0
    sources: int = 1
    kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1:
            raise ValueError(f"probability: expected above 0, at most 1, found {self.probability}")
        if not 1 <= self.sources <= 16:
            raise ValueError(f"sources: expected 1 to 16, found {self.sources}")


@dataclass(frozen=True)
class ReverbSettings:
    """With `probability` an item is played in a room, except a single recording of `dry_kinds`.

    folder: impulse responses, one a file; where it is None they are made: noise that decays by
    60 dB within a time of `rt60` seconds, after the direct sound.
    """

    probability: float = 0.2
    folder: str | None = None
    rt60: tuple[float, float] = (0.3, 1.3)
    dry_kinds: tuple[str, ...] = ("music",)

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability: expected 0 to 1, found {self.probability}")
        if not 0 < self.rt60[0] <= self.rt60[1] <= LONGEST_RESPONSE:
            raise ValueError(f"rt60: expected two rising times up to 10 s, found {self.rt60}")


@dataclass(frozen=True)
class DataSettings:
    """What a run trains on (paper 4.1 and A.1 for the mixing, levels and reverberation).

    train: the sources. valid: those for validation; where there are none, one in 16 originals of
    `train` is held out for it. mixing: the strategies, whose probabilities add up to 1.
    kind_weights: how often each kind is drawn where a strategy leaves several (missing: never);
    without weights for any kind that there is, it is in proportion to the seconds of each kind to
    the power 1 / kind_temperature: 1 by size, large values all kinds alike.
    normalise: bring each recording to a peak of full scale before the gain. gain_db: the range
    of the gain of each recording. quietest: crops below this root mean square are drawn anew.
    pan: how likely each recording is moved to a random direction, for two channels only.
    cache: a folder where all recordings are decoded once, for crops at next to no cost; None reads
    the files. workers: processes that make batches ahead; 0 makes them in this one.
    """

    train: tuple[SourceSettings, ...]
    valid: tuple[SourceSettings, ...] = ()
    mixing: tuple[MixingStrategy, ...] = (MixingStrategy(),)
    kind_weights: dict[str, float] = field(default_factory=dict)
    kind_temperature: float = 1.0
    normalise: bool = True
    gain_db: tuple[float, float] = (-10.0, 6.0)
    quietest: float = 2e-3
    pan: float = 0.0
    reverb: ReverbSettings = field(default_factory=ReverbSettings)
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
        if not -60 <= self.gain_db[0] <= self.gain_db[1] <= 60:
            raise ValueError(f"gain_db: expected two rising from -60 to 60, found {self.gain_db}")
        if not 0 <= self.quietest < 1:
            raise ValueError(f"quietest: expected 0 to below 1, found {self.quietest}")
        if not 0 <= self.pan <= 1:
            raise ValueError(f"pan: expected 0 to 1, found {self.pan}")
        if not 0 <= self.workers <= 256:
            raise ValueError(f"workers: expected 0 to 256, found {self.workers}")
