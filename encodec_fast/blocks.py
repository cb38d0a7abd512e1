"""Whole recordings in constant memory: audio to pieces of codes and back, for any model.

Models without segments are streamed; segmented ones are coded segment by segment, on several
threads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from encodec_fast._native import Audio, CodeArray
from encodec_fast.program import Program
from encodec_fast.segments import Ordered, Piece, Segment, SegmentDecoder, SegmentEncoder
from encodec_fast.streaming import StreamDecoder, StreamEncoder


class BlockEncoder:
    """A recording of any length to pieces, in constant memory; segments run on `threads`.

    Feed chunks [channels, any length] to `push`, then call `flush` once. In a `with` block, an
    error leaves no thread behind.
    """

    def __init__(
        self,
        program: Program,
        n_q: int,
        threads: int,
        start: str = "exact",
        live: bool = False,
    ) -> None:
        """start: see StreamEncoder; live: hand each segment's piece out as soon as it is there."""
        self._program = program
        self._n_q = n_q
        self._stream: StreamEncoder | None = None
        self._fresh = True
        if not program.header.segmented:
            self._stream = StreamEncoder(program, n_q, None, start)
        else:
            coder = SegmentEncoder(program, n_q)
            self._jobs = Ordered(coder, threads, live, coder.lanes)
            self._rest = np.zeros((program.header.channels, 0), np.float32)

    def push(self, chunk: Audio) -> list[Piece]:
        """The pieces that are finished after float32 samples [channels, any length]."""
        if self._stream is not None:
            return self._piece(self._stream.push(chunk))
        rest = np.concatenate([self._rest, chunk], axis=1) if self._rest.shape[1] else chunk
        pieces: list[Piece] = []
        while rest.shape[1] >= (self._program.header.segment_length or 0):
            pieces += self._jobs.push(self._segment(rest))
            rest = rest[:, self._program.header.segment_stride :]
        self._rest = rest.copy()  # not the caller's array
        return pieces

    def flush(self) -> list[Piece]:
        """The remaining pieces of the recording, which ends here."""
        if self._stream is not None:
            return self._piece(self._stream.flush())
        pieces: list[Piece] = []
        while self._rest.shape[1]:
            pieces += self._jobs.push(self._segment(self._rest))
            self._rest = self._rest[:, self._program.header.segment_stride :]
        return pieces + self._jobs.flush()

    def __enter__(self) -> BlockEncoder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is None:
            self._jobs.close()

    def _piece(self, codes: CodeArray) -> list[Piece]:
        if codes.shape[1] == 0:
            return []
        start, self._fresh = self._fresh, False
        return [Piece(codes, None, start)]

    def _segment(self, rest: Audio) -> Segment:
        return Segment(rest[:, : self._program.header.segment_length].copy(), "wav")


class OverlapAdd:
    """Joins decoded segments that start `stride` samples apart (paper 3.1): each is weighted by a
    triangle as long as the first one, and sums are divided by the sum of weights.

    length: of the first one, where that is not among them."""

    def __init__(self, channels: int, stride: int, length: int | None = None) -> None:
        self._stride = stride
        self._weight = None if length is None else _triangle(length)
        self._cut = False  # the segment before ends too soon for another one
        self._sum = np.zeros((channels, 0), np.float32)
        self._total = np.zeros(0, np.float32)

    def push(self, segment: Audio) -> Audio:
        """Add float32 [channels, samples]; returns what no later segment can change. Raises
        ValueError for a segment that is longer than the first or leaves a gap before it."""
        if self._weight is None:
            self._weight = _triangle(segment.shape[1])
        if self._cut or segment.shape[1] > len(self._weight):
            raise ValueError("codes: a segment's length does not fit the segments around it")
        missing = max(0, segment.shape[1] - self._sum.shape[1])
        self._sum = np.pad(self._sum, ((0, 0), (0, missing)))
        self._total = np.pad(self._total, (0, missing))
        weight = self._weight[: segment.shape[1]]
        # Codes of a hostile file can decode to infinity, which is not this class's to report.
        with np.errstate(over="ignore", invalid="ignore"):
            self._sum[:, : segment.shape[1]] += weight * segment
            self._total[: segment.shape[1]] += weight
            done = self._sum[:, : self._stride] / self._total[: self._stride]
        self._cut = done.shape[1] < self._stride
        self._sum, self._total = self._sum[:, self._stride :], self._total[self._stride :]
        return done

    def flush(self) -> Audio:
        """The rest, up to the end of the last segment."""
        with np.errstate(invalid="ignore"):
            return self._sum / self._total


def _triangle(length: int) -> Audio:
    ramp = np.linspace(0, 1, length + 2, dtype=np.float32)[1:-1]
    weight: Audio = np.float32(0.5) - np.abs(ramp - np.float32(0.5))
    return weight


class BlockDecoder:
    """Pieces to audio in constant memory; segments run on `threads`. The caller trims the result
    to the recording's length. In a `with` block, an error leaves no thread behind."""

    def __init__(
        self,
        program: Program,
        threads: int,
        start: str = "exact",
        live: bool = False,
        within: bool = False,
    ) -> None:
        """start: see StreamDecoder; live: hand each segment's audio out as soon as it is there;
        within: the first piece is not the beginning of the recording."""
        self._program = program
        self._stream: StreamDecoder | None = None
        header = program.header
        if not header.segmented:
            self._stream = StreamDecoder(program, None, start)
        else:
            coder = SegmentDecoder(program)
            self._jobs = Ordered(coder, threads, live, coder.lanes)
            # Of decoded segments: whole frames.
            self._full = -(-(header.segment_length or 0) // header.hop) * header.hop
            stride = header.segment_stride or 1
            self._joiner = OverlapAdd(header.channels, stride, self._full if within else None)

    def push(self, piece: Piece) -> Audio:
        """Finished samples float32 [channels, samples >= 0]."""
        if self._stream is not None:
            return self._stream.push(piece.codes)
        return self._joined(self._jobs.push(piece))

    def skip(self, count: int) -> Audio:
        """Samples up to a gap of `count` frames (or segments) and silence for it. What follows is
        decoded like a beginning."""
        header = self._program.header
        if self._stream is not None:
            rest = self._stream.flush()
            self._stream.reset()
            return np.pad(rest, ((0, 0), (0, count * header.hop)))
        parts = [self._joined(self._jobs.drain())]
        for _ in range(count):
            silence = np.zeros((header.channels, self._full), np.float32)
            parts.append(self._joined([silence]))
        return np.concatenate(parts, axis=1)

    def flush(self) -> Audio:
        """The remaining samples."""
        if self._stream is not None:
            rest: Audio = self._stream.flush()
            return rest
        done = self._joined(self._jobs.flush())
        return np.concatenate([done, self._joiner.flush()], axis=1)

    def __enter__(self) -> BlockDecoder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is None:
            self._jobs.close()

    def _joined(self, segments: Sequence[Audio]) -> Audio:
        parts = [self._joiner.push(segment) for segment in segments]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([np.zeros((self._program.header.channels, 0), np.float32), *parts], 1)
