"""Many recordings of any lengths at once, sharing each read of the weights: models without
segments take a recording per lane of one native object and refill the lane when it ends; segmented
models take the segments of all recordings, several to a call.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from encodec_fast._native import Audio
from encodec_fast.lanes import block_frames
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


class Block(NamedTuple):
    """Samples float32 [channels, samples >= 1] for a native call, and whether they are the last of
    their recording."""

    audio: Audio
    last: bool


class Recording:
    """A recording under way: its pieces so far, and the samples that were coded.

    chunks: its samples, float32 [channels, any length] each; they are asked for when its turn comes
    and as it goes on. Where that raises OSError or ValueError, the recording ends with the `error`.
    lanes: how many recordings go on together.
    """

    def __init__(self, program: Program, number: int, chunks: Iterable[Audio], lanes: int) -> None:
        self.number = number
        self.pieces: list[Piece] = []
        self.length = 0
        self.error: OSError | ValueError | None = None
        header = program.header
        if header.segment_length is None:
            size = block_frames(program.breadth, lanes) * header.hop
            first = program.encoder.start_rows
            self._blocks = blocks(chunks, max(size, first), size)
        else:
            self._blocks = segment_blocks(chunks, header.segment_length, header.segment_stride or 1)
        self._stride = header.segment_stride

    def next(self) -> Block | None:
        """The next block, or None where the recording cannot be read on."""
        try:
            block = next(self._blocks)
        except StopIteration:
            self.error = ValueError("expected at least one sample, found none")
            return None
        except (OSError, ValueError) as error:
            self.error = error
            return None
        samples = block.audio.shape[1]
        self.length += samples if block.last or self._stride is None else self._stride
        return block


def blocks(chunks: Iterable[Audio], first: int, size: int) -> Iterator[Block]:
    """Cuts a recording that comes in chunks of any length into blocks of `size` samples, the first
    one of `first`; the last one has what is left. None for no samples."""
    rest: Audio | None = None
    wanted = first
    for chunk in chunks:
        rest = chunk if rest is None else np.concatenate([rest, chunk], axis=1)
        while rest.shape[1] > wanted:
            yield Block(np.ascontiguousarray(rest[:, :wanted]), False)
            rest, wanted = rest[:, wanted:], size
    if rest is not None and rest.shape[1]:
        yield Block(np.ascontiguousarray(rest), True)


def segment_blocks(chunks: Iterable[Audio], length: int, stride: int) -> Iterator[Block]:
    """Cuts a recording that comes in chunks of any length into segments of `length` samples that
    begin `stride` apart; those at the end have what is left. None for no samples."""
    rest: Audio | None = None
    for chunk in chunks:
        rest = chunk if rest is None else np.concatenate([rest, chunk], axis=1)
        while rest.shape[1] > length:
            yield Block(rest[:, :length].copy(), False)
            rest = rest[:, stride:]
    while rest is not None and rest.shape[1]:
        following = rest[:, stride:]
        yield Block(rest[:, :length].copy(), following.shape[1] == 0)
        rest = following


def encode_streams(
    program: Program,
    n_q: int,
    lanes: int,
    following: Callable[[], Recording | None],
    stopped: threading.Event,
) -> Iterator[Recording]:
    """Codes the recordings that `following` gives until it gives None, and returns each as it ends,
    also by an error, which does not touch the others. Works on the calling thread alone, in
    constant memory but for the codes. Ends early when `stopped` is set."""
    if program.header.segmented:
        return _encode_segments(program, n_q, following, stopped)
    return _encode_lanes(program, n_q, lanes, following, stopped)


def encode_recordings(
    program: Program, n_q: int, threads: int, order: Sequence[int], read: Callable[[int], Audio]
) -> dict[int, tuple[list[Piece], int]]:
    """Codes the recordings `order`, begun in that order, and returns pieces and samples of each.

    `read` gives a recording's samples [channels, samples >= 1] when its turn comes, on any thread,
    so that few are in memory at once. Raises what `read` raises, and ValueError for a recording
    that is too loud to have a level.
    """
    if program.header.segmented:
        return _share_segments(program, n_q, threads, order, read)
    waiting = deque(order)
    done: dict[int, tuple[list[Piece], int]] = {}
    threads = max(1, min(threads, len(order)))
    lanes = max(1, min(max(RECORDING_LANES, program.breadth), -(-len(order) // threads)))

    def following() -> Recording | None:
        try:
            number = waiting.popleft()
        except IndexError:
            return None
        return Recording(program, number, (read(number) for _ in range(1)), lanes)

    def work(stopped: threading.Event) -> None:
        for recording in _encode_lanes(program, n_q, lanes, following, stopped):
            if recording.error is not None:
                raise recording.error
            done[recording.number] = recording.pieces, recording.length

    run_on_threads(work, threads)
    return done


def run_on_threads(work: Callable[[threading.Event], None], threads: int) -> None:
    """Calls `work` once on each thread (of one: on this one). Where one call raises, the event that
    all are given is set, on which they are to end, and the error raised when they have."""
    stopped = threading.Event()
    if threads == 1:
        work(stopped)
        return
    from concurrent.futures import ThreadPoolExecutor  # only here: start-up time

    def watched() -> None:
        try:
            work(stopped)
        except BaseException:
            stopped.set()
            raise

    with ThreadPoolExecutor(threads) as pool:
        try:
            for job in [pool.submit(watched) for _ in range(threads)]:
                job.result()
        except BaseException:  # an interrupt too
            stopped.set()
            raise


def _encode_lanes(
    program: Program,
    n_q: int,
    lanes: int,
    following: Callable[[], Recording | None],
    stopped: threading.Event,
) -> Iterator[Recording]:
    native = program.new_encoder(lanes)
    nothing = np.zeros((program.header.channels, 0), np.float32)
    running: list[Recording | None] = [None] * lanes
    while not stopped.is_set():
        audio, ends = [nothing] * lanes, [False] * lanes
        for lane in range(lanes):
            while (recording := running[lane] or following()) is not None:
                block = recording.next()
                if block is not None:
                    running[lane], audio[lane], ends[lane] = recording, block.audio, block.last
                    break
                if running[lane] is not None:
                    native.reset(lane)
                    running[lane] = None
                yield recording
        if not any(running):
            return
        codes = native.run(audio, ends, [1.0] * lanes, n_q)
        for lane, recording in enumerate(running):
            if recording is not None:
                recording.pieces.append(Piece(codes[lane], None, not recording.pieces))
                if ends[lane]:
                    running[lane] = None
                    yield recording


def _encode_segments(
    program: Program,
    n_q: int,
    following: Callable[[], Recording | None],
    stopped: threading.Event,
) -> Iterator[Recording]:
    encode = SegmentEncoder(program, n_q)
    group: list[tuple[Recording, Block]] = []
    # One after the other; for a device, which takes more at once than one is read in the meantime,
    # a segment of each of several in turn.
    together = max(1, program.breadth // 2)
    running: deque[Recording] = deque()
    while not stopped.is_set():
        while len(running) < together and (fresh := following()) is not None:
            running.append(fresh)
        if not running:
            break
        recording = running.popleft()
        block = recording.next()
        if block is not None:
            try:
                encode.scale(Segment(block.audio, "audio"))
            except ValueError as error:  # here, where it is known whose it is
                recording.error = error
        if block is None or recording.error is not None:
            group = [one for one in group if one[0] is not recording]
            yield recording
            continue
        if not block.last:
            running.append(recording)
        group.append((recording, block))
        if len(group) == encode.lanes:
            yield from _coded(encode, group)
            group = []
    if group and not stopped.is_set():
        yield from _coded(encode, group)


def _coded(encode: SegmentEncoder, group: list[tuple[Recording, Block]]) -> Iterator[Recording]:
    """Codes segments of one or several recordings; returns the recordings that end with them."""
    pieces = encode([Segment(block.audio, "audio") for _, block in group])
    for (recording, block), piece in zip(group, pieces, strict=True):
        recording.pieces.append(piece)
        if block.last:
            yield recording


def _share_segments(
    program: Program, n_q: int, threads: int, order: Sequence[int], read: Callable[[int], Audio]
) -> dict[int, tuple[list[Piece], int]]:
    """As encode_recordings, for segments: those of one recording go to all threads."""
    header = program.header
    length, stride = header.segment_length or 1, header.segment_stride or 1
    lengths: dict[int, int] = {}
    pieces: list[Piece] = []
    coder = SegmentEncoder(program, n_q)
    jobs = Ordered(coder, threads, lanes=coder.lanes)
    try:
        for number in order:
            audio = read(number)
            lengths[number] = audio.shape[1]
            for block in segment_blocks([audio], length, stride):
                pieces += jobs.push(Segment(block.audio, f"wavs[{number}]"))
        pieces += jobs.flush()
    finally:
        jobs.close()
    ready = iter(pieces)
    return {
        number: ([next(ready) for _ in range(0, length, stride)], length)
        for number, length in lengths.items()
    }
