"""Many recordings of any lengths at once, sharing each read of the weights: models without
segments take a recording per lane of one native object and refill the lane when it ends; segmented
models take the segments of all recordings, several to a call.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from encodec_fast._native import Audio, CodeArray
from encodec_fast.lanes import block_bounds, block_frames
from encodec_fast.program import Program
from encodec_fast.segments import Ordered, Piece, Segment, SegmentEncoder

# Recordings that one thread advances together: enough to share each read of the weights.
RECORDING_LANES = 8


def longest_first(wavs: Sequence[Any]) -> list[int]:
    """The positions of recordings that were not checked yet, the longest first, so that the last
    lanes end at about the same time."""

    def length(position: int) -> int:
        shape = getattr(wavs[position], "shape", None)
        return int(shape[-1]) if isinstance(shape, tuple) and shape else 0

    return sorted(range(len(wavs)), key=length, reverse=True)


class Recording:
    """A recording on its lane: its samples [channels, samples >= 1], the blocks that are left, and
    the codes so far."""

    def __init__(self, program: Program, number: int, audio: Audio, lanes: int) -> None:
        self.number = number
        self.audio = audio
        rows, first = audio.shape[1], program.encoder.start_rows
        frames = block_frames(program.breadth, lanes)
        self.blocks = deque(block_bounds(rows, program.header.hop, first, True, frames))
        self.parts: list[CodeArray] = []


def encode_recordings(
    program: Program, n_q: int, threads: int, order: Sequence[int], read: Callable[[int], Audio]
) -> dict[int, tuple[list[Piece], int]]:
    """Codes the recordings `order`, begun in that order, and returns pieces and samples of each.

    `read` gives a recording's samples [channels, samples >= 1] when its turn comes, on any thread,
    so that few are in memory at once. Raises what `read` raises, and ValueError for a recording
    that is too loud to have a level.
    """
    if program.header.segmented:
        return _encode_segments(program, n_q, threads, order, read)
    waiting = deque(order)
    done: dict[int, tuple[list[Piece], int]] = {}
    threads = max(1, min(threads, len(order)))
    lanes = max(1, min(max(RECORDING_LANES, program.breadth), -(-len(order) // threads)))
    failed = threading.Event()

    def work() -> None:
        try:
            for recording in _encode_lanes(program, n_q, lanes, waiting, read, failed):
                codes = np.concatenate(recording.parts, axis=1)
                done[recording.number] = [Piece(codes, None, True)], recording.audio.shape[1]
        except BaseException:
            failed.set()
            raise

    if threads == 1:
        work()
        return done
    from concurrent.futures import ThreadPoolExecutor  # only here: start-up time

    with ThreadPoolExecutor(threads) as pool:
        try:
            for job in [pool.submit(work) for _ in range(threads)]:
                job.result()
        except BaseException:  # an interrupt too
            failed.set()
            raise
    return done


def _encode_lanes(
    program: Program,
    n_q: int,
    lanes: int,
    waiting: deque[int],
    read: Callable[[int], Audio],
    failed: threading.Event,
) -> Iterator[Recording]:
    """The recordings as they end. Stops early when `failed` is set."""
    native = program.new_encoder(lanes)
    nothing = np.zeros((program.header.channels, 0), np.float32)
    running: list[Recording | None] = [None] * lanes
    while not failed.is_set():
        blocks, ends = [nothing] * lanes, [False] * lanes
        for lane in range(lanes):
            recording = running[lane] or _next(program, waiting, read, lanes)
            running[lane] = recording
            if recording is not None:
                begin, end = recording.blocks.popleft()
                blocks[lane] = np.ascontiguousarray(recording.audio[:, begin:end])
                ends[lane] = not recording.blocks
        if not any(running):
            return
        codes = native.run(blocks, ends, [1.0] * lanes, n_q)
        for lane, recording in enumerate(running):
            if recording is not None:
                recording.parts.append(codes[lane])
                if ends[lane]:
                    running[lane] = None
                    yield recording


def _next(
    program: Program, waiting: deque[int], read: Callable[[int], Audio], lanes: int
) -> Recording | None:
    try:
        number = waiting.popleft()
    except IndexError:
        return None
    return Recording(program, number, read(number), lanes)


def _encode_segments(
    program: Program, n_q: int, threads: int, order: Sequence[int], read: Callable[[int], Audio]
) -> dict[int, tuple[list[Piece], int]]:
    header = program.header
    stride = header.segment_stride or 1
    lengths: dict[int, int] = {}
    pieces: list[Piece] = []
    coder = SegmentEncoder(program, n_q)
    jobs = Ordered(coder, threads, lanes=coder.lanes)
    try:
        for number in order:
            audio = read(number)
            lengths[number] = audio.shape[1]
            for start in range(0, audio.shape[1], stride):
                segment = audio[:, start : start + (header.segment_length or 0)]
                pieces += jobs.push(Segment(segment.copy(), f"wavs[{number}]"))
        pieces += jobs.flush()
    finally:
        jobs.close()
    ready = iter(pieces)
    return {
        number: ([next(ready) for _ in range(0, length, stride)], length)
        for number, length in lengths.items()
    }
