"""What training runs share: a bounded length, checkpoints to go on from, a log, an end."""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from encodec_fast.models.collective import rank
from encodec_fast.training.checkpoint import LAST, CheckpointStore
from encodec_fast.training.progress_line import ProgressLine

LOG = "train.log"
SKIPPED = "skipped.tsv"


class RunSettings(Protocol):
    """What a run's settings have: `steps` updates bound it (0: none), and `minutes` of wall time
    (None: none); `resume` goes on with the run in the folder `out`."""

    @property
    def out(self) -> str: ...
    @property
    def steps(self) -> int: ...
    @property
    def minutes(self) -> float | None: ...
    @property
    def resume(self) -> bool: ...
    @property
    def log_steps(self) -> int: ...


class Run:
    """A run that can be killed at any time and goes on from its last checkpoint.

    `step` counts updates, `elapsed` seconds over all its processes, `skipped` the recordings that
    were found unusable. Subclasses train in `_run` until `progress` is 1, and give their state in
    `_state`. Raises ValueError for a folder with a run that is not to be resumed.
    """

    def __init__(self, settings: RunSettings, keep_steps: int = 0) -> None:
        self._bounds = settings
        self.out = Path(settings.out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.store = CheckpointStore(self.out, keep_steps)
        self.step = 0
        self.elapsed = 0.0
        self.skipped: dict[str, str] = {}

    def _state(self) -> dict[str, object]:
        """All of the run's state, for last.pt."""
        raise NotImplementedError

    def _run(self) -> None:
        raise NotImplementedError

    def resuming(self) -> bool:
        """Whether there is a checkpoint to go on from. Raises ValueError for one that the settings
        do not want."""
        found = self.store.path(LAST).exists()
        if found and not self._bounds.resume:
            raise ValueError(f"out: {self.out} holds a run; resume=true goes on with it")
        return found

    def save(self, best: bool = False) -> None:
        """Write last.pt, and best.pt if it is the best so far; by the first process alone."""
        if rank() == 0:
            self.store.save_step(self.step, self._state(), best)

    def run(self) -> None:
        """Train until the time or the steps are used up; saves also when the process is asked to
        end (SIGTERM, Ctrl-C)."""
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
        try:
            self._run()
        finally:
            signal.signal(signal.SIGTERM, before)
            self.save()
        if self.skipped:
            print(f"{len(self.skipped)} recordings were skipped: {self.out / SKIPPED}", flush=True)

    def progress(self) -> float:
        """The share of the run that is done: of its steps or its minutes, whichever is more."""
        steps, minutes = self._bounds.steps, self._bounds.minutes
        shares = [self.step / steps] if steps else []
        if minutes is not None:
            shares.append(self.elapsed / (60 * minutes))
        return min(1.0, max(shares))

    def learning_rate(self, lr: float, warmup: int, cosine: bool) -> float:
        """`lr` at this step: warmed up, then (cosine) along half a cosine down to 0 at the end."""
        warm = min(1.0, (self.step + 1) / warmup) if warmup else 1.0
        return lr * warm * (0.5 + 0.5 * math.cos(math.pi * self.progress()) if cosine else 1.0)

    def progress_line(self) -> ProgressLine:
        """The run's line and its log."""
        bounds = self._bounds
        return ProgressLine(self.out / LOG, bounds.steps, bounds.minutes or 0.0, bounds.log_steps)

    def note_skipped(self, skipped: Iterable[tuple[str, str]]) -> None:
        """Count and list recordings that could not be used, each once, with the reason."""
        for source, reason in skipped:
            if source not in self.skipped:
                self.skipped[source] = reason
                with (self.out / SKIPPED).open("a", encoding="utf-8") as listed:
                    listed.write(f"{source}\t{' '.join(reason.split())}\n")
