"""What training runs share: a bounded length, a schedule, checkpoints, an end when asked for."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import distributed, nn

from encodec_fast.models.collective import rank, sum_ranks, world
from encodec_fast.training.bfloat16 import wrong_layer
from encodec_fast.training.checkpoint import LAST, CheckpointStore
from encodec_fast.training.configuration import TASK, as_yaml
from encodec_fast.training.progress_line import ProgressLine
from encodec_fast.training.run_settings import RunSettings
from encodec_fast.training.sources import MANIFEST, SourceSettings, unfiltered

LOG = "train.log"
SETTINGS = "settings.yaml"
SKIPPED = "skipped.tsv"


@contextlib.contextmanager
def processes(settings: RunSettings) -> Iterator[None]:
    """This process's threads and, under torchrun, its place among the others. A run that is refused
    leaves no empty folder."""
    threads = torch.get_num_threads()
    out = Path(settings.out)
    new = not out.exists()
    torch.set_num_threads(settings.threads)
    torch.set_flush_denormal(True)
    together = int(os.environ.get("WORLD_SIZE", "1")) > 1
    try:
        if together:
            device = _device(settings.device)
            if device.type == "cuda":
                torch.cuda.set_device(device)
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            distributed.init_process_group(backend)
        yield
    except BaseException:
        if new:
            _remove_empty(out)
        raise
    finally:
        if together and distributed.is_initialized():
            distributed.destroy_process_group()
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)


def _remove_empty(folder: Path) -> None:
    """Remove a folder and those in it where there is no file."""
    for path in sorted([folder, *folder.rglob("*")], reverse=True):
        with contextlib.suppress(OSError):  # it has files, or is none
            path.rmdir()


class Run:
    """A run that can be killed at any time and goes on from its last checkpoint.

    `step` counts updates, `elapsed` seconds over all its processes, `skipped` the recordings that
    were found unusable, with the reason; `precision` is what it computes in (see
    `settle_precision`). Subclasses train in `_run` while `going`, and give all of their state in
    `_state`. Raises ValueError for a folder that holds a run which is not to be resumed.
    """

    def __init__(self, settings: RunSettings) -> None:
        self._bounds = settings
        self.device = _device(settings.device)
        self.out = Path(settings.out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.store = CheckpointStore(self.out, settings.keep_steps)
        self.step = 0
        self.elapsed = 0.0
        self.skipped: dict[str, str] = {}
        self.precision = settings.precision
        self._stopped = False
        self._notes: list[str] = []
        self._running = False
        if not self.resuming() and settings.resume:
            self.note(f"no checkpoint in {self.out}: starting anew")
        listed = self.out / self._skipped_name()
        if listed.exists():
            lines = listed.read_text(encoding="utf-8").splitlines()
            self.skipped = dict(line.partition("\t")[::2] for line in lines)

    def resuming(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        found = self.store.path(LAST).exists()
        if found and not self._bounds.resume:
            raise ValueError(
                f"out: {self.out} holds a run: resume=true goes on with it, else choose another"
            )
        return found

    def note(self, text: str) -> None:
        """A line of its own, once, on stderr and, of a run that is not refused, in its log."""
        if rank() == 0 and text not in self._notes:
            self._notes.append(text)
            print(text, file=sys.stderr, flush=True)
            if self._running:
                self._log([text])

    def _log(self, lines: Iterable[str]) -> None:
        with (self.out / LOG).open("a", encoding="utf-8", errors="backslashreplace") as log:
            log.writelines(f"{line}\n" for line in lines)

    def note_unfiltered(self, sources: Iterable[SourceSettings]) -> None:
        """Tell which sources are folders that all recordings are taken of."""
        for source in sources:
            if unfiltered(source):
                self.note(
                    f"{source.path}: has no {MANIFEST}: all recordings in it, without filters"
                )

    def settle_precision(self, *modules: nn.Module) -> None:
        """Compute in float32 where bfloat16 was asked for and this machine, or that of another
        process, does not compute the layers of `modules` right in it."""
        if self.precision != "bfloat16" or self.device.type != "cpu":
            return
        wrong = wrong_layer(modules)
        if sum_ranks(torch.tensor(float(wrong is not None))) > 0:
            self.precision = "float32"
            self.note(
                "precision: float32, as bfloat16 is computed wrong here (docs/training.md): "
                f"{wrong or 'by another process'}"
            )

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """The precision that convolutions and products run in."""
        enabled = self.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def _state(self) -> dict[str, object]:
        raise NotImplementedError

    def _run(self) -> None:
        raise NotImplementedError

    def save(self, best: bool = False) -> None:
        """Write last.pt, all of the run's state, and best.pt if it is the best so far; by the first
        of several processes."""
        if rank() == 0:
            self.store.save_step(self.step, self._state(), best)

    def run(self) -> None:
        """Train until the time or the steps are used up. Asked to end (SIGTERM, Ctrl-C) it ends
        after the step that it is in, saves, and raises SystemExit."""
        self._write_settings()
        self._log(self._notes)
        self._running = True
        with self._signals():
            self._run()
            self.save()
        if self.skipped:
            listed = self.out / self._skipped_name()
            print(f"{len(self.skipped)} recordings skipped, see {listed}", flush=True)
        if self._stopped:
            sys.exit(f"stopped at step {self.step}: resume=true goes on from there")

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may
            return
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self._stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, _frame: object) -> None:
        self._stopped = True
        signal.signal(number, signal.SIG_DFL)  # asked again, it does not wait for the step

    def spend(self, seconds: float) -> None:
        """Count the time of a step. Processes that train together agree on it, and on a wish to
        end: they must take the same steps."""
        self.elapsed += seconds
        if world() > 1:
            mine = [self.elapsed if rank() == 0 else 0.0, float(self._stopped)]
            agreed = sum_ranks(torch.tensor(mine, dtype=torch.float64, device=self.device))
            self.elapsed, self._stopped = agreed[0].item(), bool(agreed[1] > 0)

    def going(self) -> bool:
        """Whether there is another step to take."""
        return self.progress() < 1 and not self._stopped

    def progress(self) -> float:
        """The share of the run that is done: of its steps or of its minutes, whichever is more."""
        steps, minutes = self._bounds.steps, self._bounds.minutes
        timed = 0.0 if minutes is None else self.elapsed / (60 * minutes)
        return min(1.0, max(self.step / steps, timed))

    def _write_settings(self) -> None:
        """Once the run is known to be this folder's; its paths hold from any other, too."""
        if rank() == 0:
            partial = self.out / f"{SETTINGS}.partial"
            text = f"{TASK}: {self._bounds.task}\n{as_yaml(self._bounds.rooted())}"
            partial.write_text(text, encoding="utf-8")
            partial.replace(self.out / SETTINGS)

    def _skipped_name(self) -> str:
        """Each process has a list of its own."""
        return SKIPPED if rank() == 0 else f"{rank()}.{SKIPPED}"

    def note_skipped(self, skipped: Iterable[tuple[str, str]]) -> None:
        """List recordings that cannot be used, each once, with the reason."""
        for source, told in skipped:
            if source not in self.skipped:
                self.skipped[source] = reason = told.removeprefix(f"{source}: ")
                with (self.out / self._skipped_name()).open(
                    "a", encoding="utf-8", errors="backslashreplace"
                ) as listed:
                    listed.write(f"{source}\t{' '.join(reason.split())}\n")

    def progress_line(self) -> ProgressLine:
        """What shows the run and keeps its log."""
        bounds = self._bounds
        steps = bounds.steps if bounds.minutes is None else 0
        return ProgressLine(self.out / LOG, steps, bounds.minutes or 0.0, bounds.log_steps)

    def _learning_rate(self) -> float:
        """Warmed up, then constant or along half a cosine down to 0 at the end."""
        optimizer = self._bounds.optimizer
        warm = min(1.0, (self.step + 1) / max(1, optimizer.warmup))
        if optimizer.schedule == "cosine":
            warm *= 0.5 + 0.5 * math.cos(math.pi * self.progress())
        return optimizer.lr * warm


def _device(name: str) -> torch.device:
    """The device called "cpu" or "cuda", of several GPUs the one that torchrun gave this process;
    "auto" is a GPU where there is one. Raises ValueError for "cuda" without any."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ValueError("device: expected a CUDA device for 'cuda', found none")
    if name == "cpu" or not available:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
