"""The settings that every training run has, and the checks that settings share."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, TypeVar

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("float32", "bfloat16")
SCHEDULES = ("constant", "cosine")

AnyRun = TypeVar("AnyRun", bound="RunSettings")


def check(name: str, value: float, least: float, most: float = math.inf) -> None:
    """Raises ValueError naming `name` unless least <= value <= most."""
    if not least <= value <= most:
        bounds = f"at least {least:g}" if most == math.inf else f"{least:g} to {most:g}"
        raise ValueError(f"{name}: expected {bounds}, found {value!r}")


def check_positive(name: str, value: float) -> None:
    """Raises ValueError naming `name` unless 0 < value < infinity."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name}: expected above 0, found {value!r}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises ValueError naming `name` unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, found {value!r}")


@dataclass(frozen=True)
class OptimizerSettings:
    """Adam. lr rises over `warmup` steps and falls along half a cosine to 0 at the run's end where
    `schedule` says so; `clip` bounds the norm of all gradients, 0 switches it off."""

    lr: float = 3e-4
    betas: tuple[float, float] = (0.5, 0.9)
    warmup: int = 0
    schedule: str = "constant"
    clip: float = 0.0

    def __post_init__(self) -> None:
        check_positive("lr", self.lr)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas: expected two from 0 to below 1, found {self.betas!r}")
        check("warmup", self.warmup, 0)
        check_choice("schedule", self.schedule, SCHEDULES)
        check("clip", self.clip, 0)


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What bounds a run and what it keeps.

    out: the run's folder. audio: the folder in which the paths of sources and impulse responses
    begin that are not absolute. `steps` updates, or fewer where `minutes` of wall time bound it.
    precision: "bfloat16" is float32 on a CPU that computes it wrong. The checkpoint last.pt is
    written every `save_steps`, those of steps that `keep_steps` divides are kept (0: none); the log
    has a line every `log_steps`. resume: go on from last.pt if it exists.
    """

    task: ClassVar[str]  # what a configuration file calls it

    out: str
    audio: str = ""
    steps: int
    minutes: float | None = None
    batch: int
    seconds: float = 1.0
    seed: int = 2036
    device: str = "auto"
    precision: str = "float32"
    threads: int = 1
    average_decay: float = 0.99
    log_steps: int = 100
    save_steps: int = 1000
    keep_steps: int = 0
    resume: bool = False
    optimizer: OptimizerSettings = OptimizerSettings()

    def __post_init__(self) -> None:
        if not self.out:
            raise ValueError("out: expected a folder for the run, found ''")
        for name in ("steps", "batch", "threads", "log_steps", "save_steps"):
            check(name, getattr(self, name), 1)
        check("keep_steps", self.keep_steps, 0)
        check("seed", self.seed, 0, 2**32 - 1)
        if self.minutes is not None:
            check_positive("minutes", self.minutes)
        check("seconds", self.seconds, 0.05, 600)
        check("average_decay", self.average_decay, 0, 1)
        check_choice("device", self.device, DEVICES)
        check_choice("precision", self.precision, PRECISIONS)

    def rooted(self: AnyRun) -> AnyRun:
        """The same settings with absolute paths, which hold in any working folder."""
        out, audio = (str(Path(path).absolute()) for path in (self.out, self.audio))
        return replace(self, out=out, audio=audio)
