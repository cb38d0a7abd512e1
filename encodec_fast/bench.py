"""How fast a model runs here: whole recordings, one frame per call, and each of its operations."""

from __future__ import annotations

import math
import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import encodec_fast
from encodec_fast import _native, store
from encodec_fast._native import Audio
from encodec_fast.audio import AudioReader
from encodec_fast.codec import Codec
from encodec_fast.codes import Codes
from encodec_fast.lanes import BLOCK_FRAMES

MAX_SECONDS = 600.0
_REPETITIONS = 5
_PATIENCE = 20.0  # seconds of work after which no further repetition begins
_MAX_CALLS = 1000  # frames of the recording that are passed one by one


@dataclass(frozen=True)
class Recording:
    """One direction of the whole recording: the median of its repetitions in seconds, and rates.

    GMAC/s counts the multiply-accumulates of the products of matrices and of the plain RVQ search.
    """

    direction: str
    seconds: float
    times_real_time: float
    gmac_per_second: float


@dataclass(frozen=True)
class Frames:
    """One frame per call: milliseconds, and the same as shares of the time that a frame lasts."""

    direction: str
    calls: int
    median_ms: float
    p99_ms: float
    median_share: float
    p99_share: float


@dataclass(frozen=True)
class Operation:
    """One operation of a program over the whole recording; `share` is of its direction's time."""

    name: str
    seconds: float
    share: float
    macs: int
    gmac_per_second: float


@dataclass(frozen=True)
class Profile:
    """The operations of one direction in the order of the program, run on one thread in calls of
    `frames_per_call` or of whole segments (None)."""

    direction: str
    frames_per_call: int | None
    operations: list[Operation]


@dataclass(frozen=True)
class Report:
    """What was measured, of what, and where. `frames` and `profile` are empty if not asked for."""

    version: str
    isa: str
    cpu: str
    cores: int
    model: str
    bandwidth: float
    threads: int
    seconds: float
    sample_rate: int
    channels: int
    frame_ms: float
    recording: list[Recording]
    frames: list[Frames]
    profile: list[Profile]


def measure(
    codec: Codec, bandwidth: float, seconds: float, frames: bool = False, profile: bool = False
) -> Report:
    """Time `codec` at `bandwidth` kbps on `seconds` of the sample recording, repeated or cut.

    `frames` adds one frame per call, `profile` the single operations (with `frames` also in calls
    of one frame). Raises ValueError for an unsupported bandwidth, `seconds` outside 0 (excluded)
    to 600 or shorter than a frame that is asked for, and `frames` of a model that is not causal.
    """
    n_q = codec.n_q(bandwidth)
    frame_seconds = codec.hop / codec.sample_rate
    if not 0 < seconds <= MAX_SECONDS:
        raise ValueError(f"seconds: expected more than 0, up to {MAX_SECONDS:g}, found {seconds:g}")
    if frames and not codec.causal:
        raise ValueError(f"frames: {codec.name} is not causal, it has no frame for each call")
    if frames and seconds < frame_seconds:
        raise ValueError(
            f"seconds: expected at least one frame ({frame_seconds:.4g}), found {seconds:g}"
        )
    audio = _sample(codec, seconds)
    codes = codec.encode(audio, bandwidth)
    blocks = [_profile(codec, audio, codes, n_q, BLOCK_FRAMES)]
    recording = _time_recording(codec, audio, codes, bandwidth, blocks[0])
    by_frame = _time_frames(codec, audio, bandwidth) if frames else []
    if frames and profile:
        blocks.append(_profile(codec, audio, codes, n_q, 1))
    return Report(
        version=encodec_fast.__version__,
        isa=_native.cpu_info()["isa"],
        cpu=cpu_name(),
        cores=os.cpu_count() or 1,
        model=codec.name,
        bandwidth=bandwidth,
        threads=codec.threads,
        seconds=audio.shape[1] / codec.sample_rate,
        sample_rate=codec.sample_rate,
        channels=codec.channels,
        frame_ms=1e3 * frame_seconds,
        recording=recording,
        frames=by_frame,
        profile=[one for pair in blocks for one in pair] if profile else [],
    )


def cpu_name() -> str:
    """The processor as the system calls it, or its architecture."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1] if match else platform.machine()


# --- measuring ------------------------------------------------------------------------------------


def _sample(codec: Codec, seconds: float) -> Audio:
    """The sample recording as float32 [channels, samples], repeated or cut to `seconds`."""
    length = max(1, round(seconds * codec.sample_rate))
    with AudioReader(store.sample_path(), codec.sample_rate, codec.channels) as reader:
        once = np.concatenate(list(reader.blocks()), axis=1)
    repeats = math.ceil(length / once.shape[1])
    return np.ascontiguousarray(np.tile(once, (1, repeats))[:, :length])


def _time_recording(
    codec: Codec, audio: Audio, codes: Codes, bandwidth: float, profiles: Sequence[Profile]
) -> list[Recording]:
    duration = audio.shape[1] / codec.sample_rate
    jobs = partial(codec.encode, audio, bandwidth), partial(codec.decode, codes)
    results = []
    for profile, job in zip(profiles, jobs, strict=True):
        times: list[float] = []
        while len(times) < _REPETITIONS and sum(times) < _PATIENCE:
            times.append(_seconds(job))
        median = float(np.median(times))
        macs = sum(operation.macs for operation in profile.operations)
        results.append(Recording(profile.direction, median, duration / median, macs / median / 1e9))
    return results


def _time_frames(codec: Codec, audio: Audio, bandwidth: float) -> list[Frames]:
    """Encoder alone, decoder alone, and both in turn, as in a call."""
    encoder = codec.stream_encoder(bandwidth, start="low_latency")  # a frame for each hop at once
    decoder = codec.stream_decoder(start="low_latency")
    count = min(audio.shape[1] // codec.hop, _MAX_CALLS)
    chunks = [np.ascontiguousarray(audio[:, i * codec.hop :][:, : codec.hop]) for i in range(count)]
    codes = [encoder.push(chunk) for chunk in chunks]
    for frame in codes:  # as the encoder before: no first call among the timed ones
        decoder.push(frame)

    def both(chunk: Audio) -> None:
        decoder.push(encoder.push(chunk))

    measured = {
        "encode": [_seconds(encoder.push, chunk) for chunk in chunks],
        "decode": [_seconds(decoder.push, frame) for frame in codes],
        "both": [_seconds(both, chunk) for chunk in chunks],
    }
    frame_ms = 1e3 * codec.hop / codec.sample_rate
    results = []
    for direction, times in measured.items():
        median, p99 = (float(ms) for ms in 1e3 * np.percentile(times, [50, 99]))
        results.append(Frames(direction, count, median, p99, median / frame_ms, p99 / frame_ms))
    return results


def _profile(codec: Codec, audio: Audio, codes: Codes, n_q: int, frames: int) -> list[Profile]:
    """Both directions, operation by operation, on native streams of their own."""
    program, header = codec.program, codec.program.header
    encoder = _native.Encoder(program.encoder, program.codebooks, 1, False)
    decoder = _native.Decoder(program.decoder, program.codebooks, 1, False)
    encoder.profile(True)
    decoder.profile(True)
    if not header.segmented:
        starts = program.encoder.start_rows, program.decoder.start_rows
        for chunk, last in _cut(audio, starts[0], frames * codec.hop):
            encoder.run([chunk], [last], [1.0], n_q)
        for chunk, last in _cut(codes.codes[0], starts[1], frames):
            decoder.run([chunk], [last], [1.0])
    else:
        begins = range(0, audio.shape[1], header.segment_stride or 1)
        scales = codes.scales or [1.0] * len(begins)
        for begin, segment, scale in zip(begins, codes.codes, scales, strict=True):
            chunk = np.ascontiguousarray(audio[:, begin:][:, : header.segment_length])
            encoder.run([chunk], [True], [scale], n_q)
            decoder.run([segment], [True], [scale])
    size = None if header.segmented else frames
    return [
        Profile("encode", size, _operations(encoder.timings())),
        Profile("decode", size, _operations(decoder.timings())),
    ]


def _cut(data: npt.NDArray[Any], start: int, size: int) -> list[tuple[npt.NDArray[Any], bool]]:
    """`data` [..., length] in blocks of `size`, the first at least `start`, and which is last."""
    length = data.shape[1]
    edges = [0, *range(max(start, size), length, size), length]
    return [(np.ascontiguousarray(data[:, a:b]), b == length) for a, b in pairwise(edges)]


def _operations(timings: Sequence[tuple[str, float, int]]) -> list[Operation]:
    total = sum(seconds for _, seconds, _ in timings)
    return [
        Operation(name, seconds, _ratio(seconds, total), macs, _ratio(macs / 1e9, seconds))
        for name, seconds, macs in timings
    ]


def _ratio(value: float, by: float) -> float:
    """0 where the clock was too coarse to see any time."""
    return value / by if by > 0 else 0.0


def _seconds(job: Callable[..., object], *arguments: object) -> float:
    begin = time.perf_counter()
    job(*arguments)
    return time.perf_counter() - begin


# --- printing -------------------------------------------------------------------------------------


def as_text(report: Report) -> str:
    """The report as lines for a terminal."""
    channels = "mono" if report.channels == 1 else f"{report.channels} channels"
    lines = [
        f"encodec-fast {report.version}, {report.isa}, {report.cpu}, {report.cores} cores",
        f"{report.model}, {report.bandwidth:g} kbps, {report.seconds:g} s at {report.sample_rate} "
        f"Hz, {channels}, threads {report.threads}",
    ]
    lines += _table(
        ["whole recording", "s", "x real time", "GMAC/s"],
        [
            [
                r.direction,
                f"{r.seconds:.4f}",
                f"{r.times_real_time:.2f}",
                f"{r.gmac_per_second:.2f}",
            ]
            for r in report.recording
        ],
    )
    if report.frames:
        title = f"one frame per call ({report.frames[0].calls} of {report.frame_ms:.3f} ms)"
        rows = []
        for f in report.frames:
            shares = f"{f.median_share:.1%}", f"{f.p99_share:.1%}"
            rows.append([f.direction, f"{f.median_ms:.3f}", f"{f.p99_ms:.3f}", *shares])
        lines += _table([title, "median ms", "p99 ms", "of the frame", "p99"], rows)
    for profile in report.profile:
        size = "segments" if profile.frames_per_call is None else profile.frames_per_call
        title = f"{profile.direction}, frames per call: {size}"
        lines += _table([title, "ms", "share", "MMAC", "GMAC/s"], _profile_rows(profile))
    return "\n".join(lines)


def _profile_rows(profile: Profile) -> list[list[str]]:
    seconds = sum(operation.seconds for operation in profile.operations)
    macs = sum(operation.macs for operation in profile.operations)
    total = Operation("total", seconds, 1.0, macs, _ratio(macs / 1e9, seconds))
    rows = []
    for o in [*profile.operations, total]:
        numbers = f"{1e3 * o.seconds:.3f}", f"{o.share:.1%}", f"{o.macs / 1e6:.2f}"
        rows.append([o.name, *numbers, f"{o.gmac_per_second:.2f}"])
    return rows


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    """An empty line, then columns: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return [""] + [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
        for row in [header, *rows]
    ]
