"""What both command lines share: errors, warnings and progress on stderr, exit statuses."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from encodec_fast.audio_writer import PEAK_LIMIT
from encodec_fast.container import DamageWarning
from encodec_fast.files import Progress, Written

_ENDING_SIGNALS = [getattr(signal, n) for n in ("SIGTERM", "SIGHUP") if hasattr(signal, n)]


def run(command: Callable[[], int | None]) -> int:
    """Runs `command`, which returns its exit status or None for 0, and turns its errors into one
    line on stderr and an exit status.

    A damaged file of which something survived is a warning and exit status 3.
    """
    try:
        with _unwound_by_signals(), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", DamageWarning)
            status = command() or 0
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where its errors are caught
        for warning in caught:
            say(f"warning: {one_line(warning.message)}")
            if isinstance(warning.message, DamageWarning):
                status = 3
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has gone. What is left in stdout's buffer must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except (ValueError, EOFError, OSError, MemoryError) as error:
        say(f"error: {one_line(error)}")
        return 1


@contextmanager
def _unwound_by_signals() -> Iterator[None]:
    """Makes signals that end the process raise SystemExit, unless they are ignored (nohup).

    Unwinding removes unfinished files; the default action would leave them.
    """
    before: dict[int, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():  # others may set no handlers
            for number in _ENDING_SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    before[number] = signal.signal(number, lambda n, _: sys.exit(128 + n))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def add_command(
    commands: Any, name: str, handler: Callable[[argparse.Namespace], int | None], help: str
) -> argparse.ArgumentParser:
    """A parser in the subparsers `commands`, whose arguments `handler` gets."""
    command: argparse.ArgumentParser = commands.add_parser(name, help=help, description=help)
    command.set_defaults(command=handler)
    return command


def beside(source: str | os.PathLike[str], ending: str) -> Path:
    """The output where none is named: beside the input, under its name with another ending."""
    path = Path(source)
    if not path.name:
        raise IsADirectoryError(f"input {source} is a folder")
    return path.with_name(path.stem + ending)


def say(message: str) -> None:
    """One line on stderr."""
    print(f"encodec-fast: {message}", file=sys.stderr)


def warn_clipping(written: Written, rescale: bool) -> None:
    """Tells that 16-bit output was clipped."""
    if written.peak > PEAK_LIMIT and not rescale:
        say(f"warning: clipped a peak of {written.peak:.3f} to {PEAK_LIMIT} (see --rescale)")


@contextmanager
def progress_bar(unit: str = "s") -> Iterator[Progress]:
    """A progress callback: a bar on a terminal, for work that takes longer than a moment. It counts
    in `unit`s."""
    started = time.monotonic()
    shown = sys.stderr.isatty()
    bar: Any = None

    def update(done: float, total: float | None) -> None:
        nonlocal bar
        if not shown or time.monotonic() - started < 0.5:
            return
        if bar is None:
            from tqdm import tqdm  # only here: start-up time

            bar = tqdm(total=total, unit=unit, unit_scale=True, leave=False)
        bar.update(done - bar.n)

    try:
        yield update
    finally:
        if bar is not None:
            bar.close()


def one_line(error: BaseException | str) -> str:
    """The message of an error, on one line and printable (file names may hold any bytes)."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    text = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    text = " ".join(text.split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
