"""A data set to codes on this machine: items on several threads, their tokens into one folder."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from encodec_fast.batch.coding import Failure, code_items, longest_first, read_item
from encodec_fast.batch.filesystem import is_remote
from encodec_fast.batch.formats import FORMATS, Outcome
from encodec_fast.batch.items import Item
from encodec_fast.batch.job import Job
from encodec_fast.batch.manifest import Report
from encodec_fast.batch.read_ahead import Read, ReadAhead
from encodec_fast.batch.settings import Settings
from encodec_fast.codec import Codec
from encodec_fast.many import RECORDING_LANES
from encodec_fast.program import Program

# Threads that drive a device, each with lanes of its own: while one copies its samples there, or
# takes codes back, the device works for the other.
_DRIVERS = 2
_RESULTS_PER_THREAD = 16  # that may wait for the disk
_PATIENCE = 10.0  # seconds that the end waits for a thread in the midst of a block


class Progress(NamedTuple):
    """How far a run is: seconds of audio coded by this call, items that failed in it, and the share
    of its work that is done, 0 to 1, by what the sizes of the files tell."""

    seconds: float
    failed: int
    share: float


def run_locally(
    items: Sequence[Item],
    out: str | os.PathLike[str],
    codec: Codec,
    settings: Settings,
    retry_failed: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Codes the items of the settings' job into the folder `out`; goes on where an earlier call was
    ended, by whatever. items: of all jobs, sorted by key. Errors as `tokenize`."""
    if is_remote(os.fspath(out)):
        raise ValueError(f"output {out}: expected a local folder (engine ray writes to URLs)")
    started = time.monotonic()
    job = Job(Path(out), settings, codec, items)
    report = job.finished()
    if report is not None and not (retry_failed and report.failures):
        return replace(report, resumed=report.items, seconds=time.monotonic() - started)
    with job:
        if retry_failed:
            job.retry_failed()
        pending = job.pending()
        total = sum(item.seconds for item in pending)
        guesses = {item.key: item.seconds for item in pending}
        coded, seconds, failed, done = 0, 0.0, 0, 0.0
        n_q = codec.n_q(settings.bandwidth)

        def packed(coded: Iterable[Outcome]) -> Iterable[Outcome]:
            return FORMATS[settings.format].packed(coded, codec, settings.entropy)

        outcomes = coded_items(codec.program, n_q, pending, settings.threads, packed)
        with contextlib.closing(outcomes):  # an error or interrupt here ends the threads too
            for outcome in outcomes:
                recorded = job.add(outcome)
                done += guesses[recorded.key]
                if isinstance(recorded, Failure):
                    failed += 1
                else:
                    coded += 1
                    seconds += recorded.audio_length / recorded.sample_rate
                if progress is not None:
                    progress(Progress(seconds, failed, done / total))
        report = job.finish()
    # Fewer than were coded, where a file of them could not be written.
    resumed = max(0, report.items - coded)
    return replace(report, resumed=resumed, seconds=time.monotonic() - started)


def coded_items(
    program: Program,
    n_q: int,
    items: Sequence[Item],
    threads: int,
    packed: Callable[[Iterable[Outcome]], Iterable[Outcome]] = iter,
) -> Generator[Outcome, None, None]:
    """The tokens of all items, on `threads` threads, as they are done; where the program runs on a
    device, those read ahead for it. Each thread that codes gives its own to `packed`, and on what
    that makes of them. No thread is left when the iteration ends, also by an error or an interrupt.
    """
    order: Iterator[Item] = longest_first(list(items))
    threads = max(1, min(threads, len(items)))
    workers, read, ahead = threads, None, None
    if program.device is not None:
        ahead = ReadAhead(order, _reader(program), threads, program.breadth)
        workers, read, order = max(1, min(_DRIVERS, len(items))), ahead.chunks, ahead
    following = _Shared(order)
    lanes = max(RECORDING_LANES, program.breadth // workers)
    lanes = max(1, min(lanes, -(-len(items) // workers)))
    results: queue.Queue[Outcome | BaseException | None]
    results = queue.Queue(threads * _RESULTS_PER_THREAD)
    stopped = threading.Event()

    def coded() -> Iterator[Outcome]:
        yield from code_items(program, n_q, following, lanes, stopped, read)
        if stopped.is_set():  # or what waits in `packed` for others would be packed for nobody
            raise InterruptedError("the run has ended")

    def work() -> None:
        try:
            for outcome in packed(coded()):
                results.put(outcome)
        except BaseException as error:
            results.put(error)
        finally:
            results.put(None)

    for _ in range(workers):
        threading.Thread(target=work, daemon=True).start()
    running = workers
    try:
        while running:
            result = results.get()
            if result is None:
                running -= 1
            elif isinstance(result, BaseException):
                raise result
            else:
                yield result
    finally:
        stopped.set()
        if ahead is not None:
            ahead.close()
        with contextlib.suppress(queue.Empty):  # one that waits for a dead file server is left
            while running:
                running -= results.get(timeout=_PATIENCE) is None


def _reader(program: Program) -> Read:
    return lambda item: read_item(item, program.header)


class _Shared:
    """An iterator that several threads may take from."""

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self._lock = threading.Lock()

    def __iter__(self) -> _Shared:
        return self

    def __next__(self) -> Item:
        with self._lock:
            return next(self._items)
