"""Whole recordings in constant memory: audio to pieces of codes and back, for any model.

Causal models are streamed; segmented models are coded segment by segment, on several threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np

from encodec_fast import _native
from encodec_fast._native import Audio, CodeArray
from encodec_fast.program import Program
from encodec_fast.streaming import StreamDecoder, StreamEncoder

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

T = TypeVar("T")


class Piece(NamedTuple):
    """Consecutive frames of one segment.

    codes: uint16 [n_q, frames]; scale: the segment's level (normalising models only, else None);
    start: whether a segment begins with this piece.
    """

    codes: CodeArray
    scale: float | None
    start: bool


class Ordered(Generic[T]):
    """Runs jobs on up to `threads` threads and hands their results back in the order given."""

    def __init__(self, threads: int) -> None:
        self._pool: ThreadPoolExecutor | None = None
        if threads > 1:
            from concurrent.futures import ThreadPoolExecutor  # only here: start-up time

            self._pool = ThreadPoolExecutor(threads)
        self._waiting: deque[Future[T]] = deque()
        self._most = 2 * threads

    def submit(self, job: Callable[..., T], *args: Any) -> list[T]:
        """Start a job; returns the results that have to leave for the queue to stay short."""
        if self._pool is None:
            return [job(*args)]
        self._waiting.append(self._pool.submit(job, *args))
        return [self._waiting.popleft().result()] if len(self._waiting) > self._most else []

    def drain(self) -> list[T]:
        """Wait for all jobs and return the remaining results."""
        results = [future.result() for future in self._waiting]
        self._waiting.clear()
        if self._pool is not None:
            self._pool.shutdown()
        return results


class BlockEncoder:
    """A recording of any length to pieces, in constant memory; segments run on `threads`.

    Feed chunks [channels, any length] to `push`, then call `flush` once.
    """

    def __init__(self, program: Program, n_q: int, threads: int) -> None:
        self._program = program
        self._n_q = n_q
        self._stream: StreamEncoder | None = None
        self._fresh = True
        if program.encoder.causal:
            self._stream = StreamEncoder(program, n_q, None, "exact")
        else:
            self._jobs: Ordered[Piece] = Ordered(threads)
            self._rest = np.zeros((program.header.channels, 0), np.float32)

    def push(self, chunk: Audio) -> list[Piece]:
        """The pieces that are finished after float32 samples [channels, any length]."""
        if self._stream is not None:
            return self._piece(self._stream.push(chunk))
        header = self._program.header
        self._rest = np.concatenate([self._rest, chunk], axis=1)
        pieces: list[Piece] = []
        while self._rest.shape[1] >= (header.segment_length or 0):
            pieces += self._next_segment()
        return pieces

    def flush(self) -> list[Piece]:
        """The remaining pieces of the recording, which ends here."""
        if self._stream is not None:
            return self._piece(self._stream.flush())
        pieces: list[Piece] = []
        while self._rest.shape[1]:
            pieces += self._next_segment()
        return pieces + self._jobs.drain()

    def _piece(self, codes: CodeArray) -> list[Piece]:
        if codes.shape[1] == 0:
            return []
        start, self._fresh = self._fresh, False
        return [Piece(codes, None, start)]

    def _next_segment(self) -> list[Piece]:
        header = self._program.header
        segment = np.ascontiguousarray(self._rest[:, : header.segment_length])
        self._rest = self._rest[:, header.segment_stride :]
        return self._jobs.submit(encode_segment, self._program, segment, self._n_q)


def encode_segment(program: Program, segment: Audio, n_q: int) -> Piece:
    """Code one whole segment [channels, samples >= 1] of a segmented model (paper 3.1). Raises
    ValueError for one that is too loud to have a level."""
    scale = None
    if program.header.normalize:
        scale = _native.segment_scale(segment)
        if not scale < float("inf"):
            raise ValueError("wav: too loud, the level of a segment overflows float32")
    native = _native.Encoder(program.encoder, program.codebooks, 1, False)
    codes = native.run([segment], [True], [1.0 if scale is None else scale], n_q)[0]
    return Piece(codes, scale, True)


def decode_segment(program: Program, piece: Piece) -> Audio:
    """The samples [channels, frames * hop] of one whole segment."""
    native = _native.Decoder(program.decoder, program.codebooks, 1, False)
    scale = 1.0 if piece.scale is None else piece.scale
    return native.run([piece.codes], [True], [scale])[0]


class OverlapAdd:
    """Joins decoded segments that start `stride` samples apart (paper 3.1): each is weighted by a
    triangle as long as the first one, and sums are divided by the sum of weights."""

    def __init__(self, channels: int, stride: int) -> None:
        self._stride = stride
        self._weight: Audio | None = None
        self._sum = np.zeros((channels, 0), np.float32)
        self._total = np.zeros(0, np.float32)

    def push(self, segment: Audio) -> Audio:
        """Add float32 [channels, samples]; returns what no later segment can change. Raises
        ValueError for a segment that is longer than the first or leaves a gap before it."""
        if self._weight is None:
            ramp = np.linspace(0, 1, segment.shape[1] + 2, dtype=np.float32)[1:-1]
            self._weight = np.float32(0.5) - np.abs(ramp - np.float32(0.5))
            done = self._sum
        else:
            if self._sum.shape[1] < self._stride or segment.shape[1] > len(self._weight):
                raise ValueError("codes: a segment's length does not fit the segments around it")
            with np.errstate(invalid="ignore"):
                done = self._sum[:, : self._stride] / self._total[: self._stride]
        kept, total = self._sum[:, done.shape[1] :], self._total[done.shape[1] :]
        missing = max(0, segment.shape[1] - kept.shape[1])
        self._sum = np.pad(kept, ((0, 0), (0, missing)))
        self._total = np.pad(total, (0, missing))
        weight = self._weight[: segment.shape[1]]
        # Codes of a hostile file can decode to infinity, which is not this class's to report.
        with np.errstate(over="ignore", invalid="ignore"):
            self._sum[:, : segment.shape[1]] += weight * segment
        self._total[: segment.shape[1]] += weight
        return done

    def flush(self) -> Audio:
        """The rest, up to the end of the last segment."""
        with np.errstate(invalid="ignore"):
            return self._sum / self._total


class BlockDecoder:
    """Pieces to audio in constant memory; segments run on `threads`. The caller trims the result
    to the recording's length."""

    def __init__(self, program: Program, threads: int) -> None:
        self._program = program
        self._stream: StreamDecoder | None = None
        header = program.header
        if program.decoder.causal:
            self._stream = StreamDecoder(program, None, "exact")
        else:
            self._jobs: Ordered[Audio] = Ordered(threads)
            self._joiner = OverlapAdd(header.channels, header.segment_stride or 1)

    def push(self, piece: Piece) -> Audio:
        """Finished samples float32 [channels, samples >= 0]."""
        if self._stream is not None:
            return self._stream.push(piece.codes)
        return self._joined(self._jobs.submit(decode_segment, self._program, piece))

    def flush(self) -> Audio:
        """The remaining samples."""
        if self._stream is not None:
            return self._stream.flush()
        done = self._joined(self._jobs.drain())
        return np.concatenate([done, self._joiner.flush()], axis=1)

    def _joined(self, segments: Sequence[Audio]) -> Audio:
        parts = [self._joiner.push(segment) for segment in segments]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([np.zeros((self._program.header.channels, 0), np.float32), *parts], 1)
