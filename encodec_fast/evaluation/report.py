"""What an evaluation found: per recording, in the mean, and as JSON (docs/evaluation.md)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from encodec_fast.evaluation.recordings import Setting
from encodec_fast.training.static_tables import perplexity

SCHEMA = 1
SPEECH = "speech"
ALL = "all"  # stands for every kind
# Means over recordings; costs are weighted by their length instead.
QUALITIES = (
    "si_snr",
    "mel",
    "stft_convergence",
    "stft_log_magnitude",
    "pesq",
    "stoi",
    "visqol",
)
OF_SPEECH = ("pesq", "stoi")
BITRATES = ("kbps", "kbps_static", "kbps_lm")
SPEEDS = ("encode_speed", "decode_speed")


class System(NamedTuple):
    """What decodes recordings: a model at a bandwidth (kbps), Opus at a bitrate (kbps), or a
    low-pass filter (Hz); `target` is that number. `model` is the model's label, or empty."""

    label: str
    type: str  # model, opus or lowpass
    setting: Setting
    target: float
    model: str = ""

    @staticmethod
    def of_model(model: str, setting: Setting, kbps: float) -> System:
        """A model at a bandwidth."""
        return System(f"{model}, {kbps:g} kbps", "model", setting, kbps, model)

    @staticmethod
    def of_opus(setting: Setting, kbps: float) -> System:
        """Opus at a bitrate."""
        return System(f"Opus {kbps:g} kbps, {setting}", "opus", setting, kbps)

    @staticmethod
    def of_lowpass(setting: Setting, hertz: float) -> System:
        """A low-pass filter."""
        return System(f"low-pass {hertz / 1000:g} kHz, {setting}", "lowpass", setting, hertz)


@dataclass(frozen=True)
class Figure:
    """One recording through one system; None is what was not measured, or could not be.

    seconds: evaluated; si_snr in dB, mel in dB, the STFT distance's two parts, pesq, stoi, visqol:
    evaluation.metrics and .listeners; kbps: packed bits (Opus: its packets), kbps_static, kbps_lm:
    entropy coded, all without headers; speeds: times real time on one thread.
    """

    system: str
    path: str
    kind: str
    seconds: float
    si_snr: float
    mel: float
    stft_convergence: float
    stft_log_magnitude: float
    pesq: float | None = None
    stoi: float | None = None
    visqol: float | None = None
    kbps: float | None = None
    kbps_static: float | None = None
    kbps_lm: float | None = None
    encode_speed: float | None = None
    decode_speed: float | None = None


@dataclass(frozen=True)
class Summary:
    """A system on all recordings of a kind. `values`: the mean of each field of Figure that was
    measured (of qualities over recordings, of bitrates over time, speeds of all time together);
    `failed`: how many recordings a measure could not judge."""

    system: str
    kind: str
    recordings: int
    seconds: float
    values: dict[str, float]
    failed: dict[str, int]


class Codebook(NamedTuple):
    """How one codebook is used at the highest bandwidth that was evaluated: 2 to the entropy of its
    entries, entries never used, share of those used."""

    entries: int
    perplexity: float
    dead: int
    alive: float


class Skipped(NamedTuple):
    """A recording that was left out, and why."""

    path: str
    reason: str


@dataclass
class Report:
    """An evaluation. measures: those of QUALITIES that were tried; notes: lines about what was left
    out and with what it was done."""

    about: dict[str, Any]
    systems: list[System]
    measures: tuple[str, ...]
    figures: list[Figure] = field(default_factory=list)
    codebooks: dict[str, list[Codebook]] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def kinds(self) -> list[str]:
        """Kinds of the recordings in their order, with "all" at the end where there are several."""
        found = list(dict.fromkeys(figure.kind for figure in self.figures))
        return [*found, ALL] if len(found) > 1 else found

    def summary(self) -> list[Summary]:
        """The means of every system per kind."""
        grouped: dict[tuple[str, str], list[Figure]] = {}
        for figure in self.figures:
            for kind in {figure.kind, ALL}:
                grouped.setdefault((figure.system, kind), []).append(figure)
        return [
            summarise(system.label, kind, grouped[system.label, kind], self.measures)
            for kind in self.kinds()
            for system in self.systems
            if (system.label, kind) in grouped
        ]

    def to_json(self) -> str:
        """The report as a JSON object of the schema in docs/evaluation.md."""
        content = {
            "schema": SCHEMA,
            **self.about,
            "measures": self.measures,
            "notes": self.notes,
            "systems": [
                {
                    "label": system.label,
                    "type": system.type,
                    "model": system.model or None,
                    "target": system.target,
                    **system.setting._asdict(),
                }
                for system in self.systems
            ],
            "summary": [asdict(summary) for summary in self.summary()],
            "codebooks": {
                label: [codebook._asdict() for codebook in codebooks]
                for label, codebooks in self.codebooks.items()
            },
            "skipped": [skipped._asdict() for skipped in self.skipped],
            "figures": [asdict(figure) for figure in self.figures],
        }
        return json.dumps(content, indent=1, allow_nan=False) + "\n"


def summarise(
    system: str, kind: str, figures: Sequence[Figure], measures: Sequence[str] = QUALITIES
) -> Summary:
    """The means of figures of one system, and how many recordings `measures` could not judge."""
    values: dict[str, float] = {}
    failed: dict[str, int] = {}
    for name in (*QUALITIES, *BITRATES, *SPEEDS):
        found = [(getattr(figure, name), figure.seconds) for figure in figures]
        known = [(value, seconds) for value, seconds in found if value is not None]
        if not known:
            continue
        total = sum(seconds for _, seconds in known)
        if name in BITRATES:
            values[name] = sum(value * seconds for value, seconds in known) / total
        elif name in SPEEDS:
            values[name] = total / sum(seconds / value for value, seconds in known)
        else:
            values[name] = sum(value for value, _ in known) / len(known)
    for name in measures:
        missing = sum(
            getattr(figure, name) is None
            for figure in figures
            if figure.kind == SPEECH or name not in OF_SPEECH
        )
        if missing:
            failed[name] = missing
    seconds = sum(figure.seconds for figure in figures)
    return Summary(system, kind, len(figures), seconds, values, failed)


def codebook_use(counts: NDArray[np.int64]) -> list[Codebook]:
    """The use of each codebook from the uses of its entries, int64 [codebooks, entries]."""
    found = []
    for row, value in zip(counts, perplexity(counts), strict=True):
        alive = int((row > 0).sum())
        found.append(Codebook(len(row), float(value), len(row) - alive, alive / len(row)))
    return found
