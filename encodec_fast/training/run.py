"""What training runs share: settings as options, a bounded length, checkpoints, a log."""

from __future__ import annotations

import argparse
import math
import signal
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import torch


@dataclass
class RunSettings:
    """A run's settings; every field is a command line option. `minutes` of wall time bound the run,
    or `steps` if there are any."""

    audio: str
    out: str
    minutes: float = 60.0
    steps: int = 0
    batch: int = 8
    seconds: float = 1.0
    lr: float = 1e-3
    warmup: int = 200
    average_decay: float = 0.999
    clip: float = 1.0
    threads: int = 1
    seed: int = 2024
    resume: bool = False


AnySettings = TypeVar("AnySettings", bound=RunSettings)


def parse_settings(
    kind: type[AnySettings], description: str | None, arguments: list[str] | None = None
) -> AnySettings:
    """Settings from the command line: one option per field, its type that of the default."""
    parser = argparse.ArgumentParser(description=description)
    defaults = kind(audio="", out="")
    for field in fields(kind):
        default = getattr(defaults, field.name)
        name = f"--{field.name.replace('_', '-')}"
        if isinstance(default, bool):
            parser.add_argument(name, action="store_true")
        else:
            required = default == ""
            parser.add_argument(name, type=type(default), default=default, required=required)
    return kind(**vars(parser.parse_args(arguments)))


def use_threads(settings: RunSettings) -> None:
    """Sets PyTorch up for a run's process."""
    torch.set_num_threads(settings.threads)
    torch.set_flush_denormal(True)


class Run:
    """A run that can be killed at any time and goes on from its last checkpoint.

    `step` counts updates, `elapsed` seconds over all its processes. Subclasses train in `_run`
    until `progress` is 1, and write last.pt in `save`.
    """

    def __init__(self, settings: RunSettings) -> None:
        self._bounds = settings
        self.out = Path(settings.out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.step = 0
        self.elapsed = 0.0

    def save(self) -> None:
        """Write last.pt, all of the run's state."""
        raise NotImplementedError

    def _run(self) -> None:
        raise NotImplementedError

    def run(self) -> None:
        """Train until the time or the steps are used up; saves also when the process is asked to
        end (SIGTERM, Ctrl-C)."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
        try:
            self._run()
        finally:
            self.save()

    def progress(self) -> float:
        """The share of the run that is done: of its steps if given, else of its minutes."""
        if self._bounds.steps:
            return min(1.0, self.step / self._bounds.steps)
        return min(1.0, self.elapsed / (60 * self._bounds.minutes))

    def _learning_rate(self) -> float:
        """Warmed up, then along half a cosine down to 0 at the end."""
        warm = min(1.0, (self.step + 1) / self._bounds.warmup)
        return self._bounds.lr * warm * (0.5 + 0.5 * math.cos(math.pi * self.progress()))

    def _average_share(self) -> float:
        """How much of the moving average of weights stays at this step; young ones move faster."""
        return min(self._bounds.average_decay, (1 + self.step) / (10 + self.step))

    def _write(self, name: str, state: dict[str, object]) -> None:
        """By way of a temporary name, so that a kill cannot damage it."""
        torch.save(state, self.out / f"{name}.partial")
        (self.out / f"{name}.partial").replace(self.out / name)

    def _report(self, name: str, line: str) -> None:
        """A line of the log, shown and kept."""
        print(line, flush=True)
        with (self.out / name).open("a", encoding="utf-8") as log:
            log.write(line + "\n")
