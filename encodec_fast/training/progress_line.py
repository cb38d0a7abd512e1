"""How far a run is and how it goes: one line, in place on terminals, else one every N steps."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from torch import Tensor

from encodec_fast.output import naming

_REFRESH = 0.3  # seconds: reading losses waits for the device


class ProgressLine:
    """The line `step 1200/40000 mel 0.4124 (33 %) adv 0.98 (20 %) ... lr 0.0003 s/step 0.31`.

    log: a text file that gets the line at every `every` steps and at the end. steps or minutes: the
    bounds of the run (steps, if there are any). stream: where the line is shown, if that is a
    terminal in place, a few times a second, else as the log has it; None for stderr. Losses are
    means since the line before it in the log. Use it as a context manager, or `close` it. Raises
    ValueError for `every` below 1 and a run without bounds.
    """

    def __init__(
        self,
        log: Path,
        steps: int = 0,
        minutes: float = 0.0,
        every: int = 100,
        stream: TextIO | None = None,
    ) -> None:
        if every < 1:
            raise ValueError(f"every: expected at least 1 step, found {every}")
        if steps <= 0 and minutes <= 0:
            raise ValueError("steps, minutes: expected one of them above 0, found neither")
        self._log = log
        self._steps = steps
        self._minutes = minutes
        self._every = every
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._bar: Any = None
        self._shown = 0.0
        self._start_line()

    def update(
        self,
        step: int,
        minutes: float,
        losses: Mapping[str, float | Tensor],
        shares: Mapping[str, float] | None = None,
        more: Mapping[str, float] | None = None,
    ) -> None:
        """To be called after each step.

        step: the steps done. minutes: of the whole run. losses: of this step by name, numbers or
        scalar tensors; these are read only where a line is due. shares: the balancer's, 0 to 1, by
        names of losses. more: what else the line is to tell, such as the learning rate. Raises
        OSError naming the log where it cannot be written.
        """
        self._calls += 1
        for name, loss in losses.items():
            sum_, count = self._losses.get(name, (0.0, 0))
            loss = loss.detach() if isinstance(loss, Tensor) else loss
            self._losses[name] = sum_ + loss, count + 1
        ended = step >= self._steps if self._steps else minutes >= self._minutes
        due = step % self._every == 0 or ended
        if due or (self._terminal and time.monotonic() - self._shown > _REFRESH):
            line = self._line(step, minutes, shares or {}, more or {})
            if self._terminal:
                self._show(step, minutes, line)
            if due:
                self._write(line)
                self._start_line()

    def note(self, text: str) -> None:
        """A line of its own: in the log, and above the one in place."""
        if self._terminal:
            from tqdm import tqdm

            tqdm.write(text, file=self._stream)
        self._write(text)

    def close(self) -> None:
        """Ends the line in place, which stays on the terminal."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start_line(self) -> None:
        self._losses: dict[str, tuple[float | Tensor, int]] = {}
        self._calls = 0
        self._since = time.monotonic()

    def _line(
        self, step: int, minutes: float, shares: Mapping[str, float], more: Mapping[str, float]
    ) -> str:
        if self._steps:
            parts = [f"step {step}/{self._steps}", f"minutes {minutes:.1f}"]
        else:
            parts = [f"step {step}", f"minutes {minutes:.1f}/{self._minutes:g}"]
        for name, (sum_, count) in self._losses.items():
            share = f" ({100 * shares[name]:.0f} %)" if name in shares else ""
            parts.append(f"{name} {float(sum_) / count:.4g}{share}")
        seconds = (time.monotonic() - self._since) / self._calls
        parts += [f"{name} {value:.4g}" for name, value in {**more, "s/step": seconds}.items()]
        return " ".join(parts)

    def _show(self, step: int, minutes: float, line: str) -> None:
        done, total = (step, self._steps) if self._steps else (minutes, self._minutes)
        if self._bar is None:
            from tqdm import tqdm  # only here: start-up time

            self._bar = tqdm(
                total=total,
                initial=done,
                file=self._stream,
                dynamic_ncols=True,  # the line is cut at the terminal's edge, and never wraps
                bar_format="{percentage:3.0f}%|{bar:8}| {remaining} {desc}",
            )
        self._bar.n = done
        self._bar.set_description_str(line, refresh=True)
        self._shown = time.monotonic()

    def _write(self, line: str) -> None:
        with naming(str(self._log)), self._log.open("a", encoding="utf-8") as log:
            log.write(line + "\n")
        if not self._terminal:
            print(line, file=self._stream, flush=True)
