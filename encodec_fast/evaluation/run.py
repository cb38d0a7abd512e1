"""An evaluation from end to end: models and recordings in, a report out, on several processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from datetime import datetime, timezone
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import encodec_fast
from encodec_fast._native import cpu_info
from encodec_fast.bench import cpu_name
from encodec_fast.evaluation.anchors import OpusCoder
from encodec_fast.evaluation.listeners import Visqol, installed
from encodec_fast.evaluation.measure import Excerpt, Measured, Measurer, Work
from encodec_fast.evaluation.models import find_models
from encodec_fast.evaluation.recordings import Recording, find_recordings
from encodec_fast.evaluation.report import SPEECH, Report, Skipped, codebook_use

# Done and all recordings.
Progress = Callable[[float, float | None], None]
# Takes a recording's excerpts, the original's and the decoded ones.
Listen = Callable[[Recording, list[Excerpt]], None]


def evaluate(
    models: Sequence[str | os.PathLike[str]],
    data: str | os.PathLike[str],
    *,
    split: str = "test",
    kind: str | None = None,
    limit: int | None = None,
    bandwidths: Sequence[float] | None = None,
    seconds: float = 60.0,
    jobs: int = 1,
    visqol: str | os.PathLike[str] | None = None,
    visqol_model: str | os.PathLike[str] | None = None,
    items: int = 0,
    listen: Listen | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure models and anchors on recordings; docs/evaluation.md says what and how.

    models: names, program files, or checkpoints (which need torch). data, split, kind, limit: see
    recordings.find_recordings. bandwidths: in kbps, default all of each model. seconds: evaluated
    of each recording at most. jobs: processes at work; with more than one, a script that calls this
    needs the usual `if __name__ == "__main__"`. visqol, visqol_model: ViSQOL's program and the file
    of its quality model. listen: is called with excerpts of `items` recordings of each kind, which
    lie evenly among them. progress: is called with how many recordings are done, and all.

    Recordings that cannot be evaluated are listed in the report's `skipped`. Raises ValueError for
    wrong arguments and where nothing is left, OSError for files and programs that do not work.
    """
    if not 0 < seconds < float("inf"):
        raise ValueError(f"seconds: expected more than 0, found {seconds:g}")
    if jobs < 1:
        raise ValueError(f"jobs: expected at least 1 process, found {jobs}")
    if visqol is None and visqol_model is not None:
        raise ValueError("visqol model: given without the program (visqol)")
    recordings = find_recordings(data, split, limit, kind)
    speech = any(recording.kind == SPEECH for recording in recordings)
    with tempfile.TemporaryDirectory() as folder:
        found, notes = find_models(models, bandwidths, Path(folder))
        work = Work(
            models=tuple(found),
            opus=OpusCoder.find(),
            pesq=speech and installed("pesq"),
            stoi=speech and installed("pystoi"),
            visqol=None if visqol is None else Visqol.at(visqol, visqol_model),
            seconds=seconds,
        )
        about = {
            "version": encodec_fast.__version__,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "isa": cpu_info()["isa"],
            "cpu": cpu_name(),
            "data": os.fspath(data),
            "split": split,
            "limit": limit,
            "seconds": seconds,
            "models": {model.label: model.source for model in work.models},
        }
        report = Report(about, work.systems(), work.measures(), notes=notes + _notes(work, speech))
        chosen = _spread(recordings, items) if listen is not None else set()
        with _results(work, recordings, chosen, jobs) as results:
            counts = _collect(report, results, listen, len(recordings), progress)
    if not report.figures:
        first = report.skipped[0]
        raise ValueError(
            f"data: none of {len(recordings)} recordings can be evaluated; "
            f"the first, {first.path}: {first.reason}"
        )
    report.codebooks = {label: codebook_use(uses) for label, uses in counts.items()}
    return report


def _collect(
    report: Report,
    results: Iterator[tuple[Recording, Measured]],
    listen: Listen | None,
    total: int,
    progress: Progress | None,
) -> dict[str, NDArray[np.int64]]:
    """Adds all results to the report; returns the uses of each model's codebooks."""
    counts: dict[str, NDArray[np.int64]] = {}
    for done, (recording, measured) in enumerate(results, 1):
        if measured.skipped:
            report.skipped.append(Skipped(recording.name, measured.skipped))
        report.figures += measured.figures
        for label, uses in measured.counts.items():
            counts[label] = counts.get(label, 0) + uses
        if listen is not None and measured.excerpts:
            listen(recording, measured.excerpts)
        if progress is not None:
            progress(done, total)
    return counts


def _notes(work: Work, speech: bool) -> list[str]:
    extra = "pip install 'encodec-fast[evaluate]'"
    notes = []
    if work.opus is None:
        notes.append(
            "no Opus anchors: neither opus-tools (opusenc, opusdec) nor ffmpeg with libopus found"
        )
    else:
        notes.append(f"Opus by {work.opus.version}")
    if speech and not work.pesq:
        notes.append(f"no PESQ: the package pesq is missing ({extra})")
    if speech and not work.stoi:
        notes.append(f"no STOI: the package pystoi is missing ({extra})")
    for model in work.models:
        if model.entropy is None:
            notes.append(f"{model.label} has no entropy model: packed bits only")
    return notes


def _spread(recordings: list[Recording], items: int) -> set[int]:
    """Positions of `items` recordings of each kind, spread evenly."""
    kinds: dict[str, list[int]] = {}
    for index, recording in enumerate(recordings):
        kinds.setdefault(recording.kind, []).append(index)
    return {
        indices[len(indices) * (2 * item + 1) // (2 * items)]
        for indices in kinds.values()
        for item in range(items)
    }


@contextmanager
def _results(
    work: Work, recordings: list[Recording], chosen: set[int], jobs: int
) -> Iterator[Iterator[tuple[Recording, Measured]]]:
    """Recordings in their order, each with what was measured, those `chosen` with excerpts."""
    if jobs == 1:
        measurer = Measurer(work)
        yield ((r, measurer.measure(r, index in chosen)) for index, r in enumerate(recordings))
        return
    # Started afresh: a fork of a process with threads (torch) may hang.
    context = multiprocessing.get_context("spawn")
    ending = context.Event()
    jobs = min(jobs, len(recordings))
    with ProcessPoolExecutor(jobs, context, _start, (work, ending)) as pool:
        futures = [pool.submit(_measure, r, index in chosen) for index, r in enumerate(recordings)]
        try:
            yield ((r, _result(future)) for r, future in zip(recordings, futures, strict=True))
        finally:
            ending.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _result(future: Future[Measured]) -> Measured:
    try:
        return future.result()
    except BrokenProcessPool:
        raise OSError("a worker process ended unexpectedly (out of memory?)") from None


_measurer: Measurer | None = None  # of a worker process
_ending: Event | None = None


def _start(work: Work, ending: Event) -> None:
    global _measurer, _ending
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the workers by way of their parent
    _measurer, _ending = Measurer(work), ending


def _measure(recording: Recording, excerpts: bool) -> Measured:
    assert _measurer is not None and _ending is not None
    if _ending.is_set():  # what a worker holds in advance cannot be cancelled
        return Measured(skipped="interrupted")
    return _measurer.measure(recording, excerpts)
