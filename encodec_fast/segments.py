"""Segments of models that code whole ones: several at once on the lanes of one native object, so
that they share the weights' reads, and groups of them on several threads.

A segment's codes depend neither on its group nor on the threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np

from encodec_fast import _native
from encodec_fast._native import Audio, CodeArray
from encodec_fast.program import Program

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

# Segments that one native call takes on the CPU: each costs its activations' memory.
SEGMENT_LANES = 4


def segment_lanes(program: Program) -> int:
    """Segments that one native call takes."""
    return max(SEGMENT_LANES, program.breadth // 2)


Item = TypeVar("Item")
Result = TypeVar("Result")


class Segment(NamedTuple):
    """Samples float32 [channels, samples >= 1], and the name of the argument they are of."""

    audio: Audio
    name: str


class Piece(NamedTuple):
    """Consecutive frames of one segment.

    codes: uint16 [n_q, frames]; scale: the segment's level (normalising models only, else None);
    start: whether a segment begins with this piece.
    """

    codes: CodeArray
    scale: float | None
    start: bool


class Gap(NamedTuple):
    """Frames (whole segments, where a model codes those) whose codes are lost."""

    length: int


class SegmentEncoder:
    """Codes groups of whole segments (paper 3.1), on any number of threads."""

    def __init__(self, program: Program, n_q: int) -> None:
        self._program = program
        self._n_q = n_q
        self.lanes = segment_lanes(program)
        # Natives that no thread is using: their memory is worth keeping from group to group.
        self._idle: deque[Any] = deque()

    def __call__(self, group: list[Segment]) -> list[Piece]:
        """The pieces of up to `lanes` segments. Raises ValueError for one that is too loud to
        have a level."""
        scales = [self.scale(segment) for segment in group]
        missing = self.lanes - len(group)
        nothing = np.zeros((self._program.header.channels, 0), np.float32)
        audio = [segment.audio for segment in group] + [nothing] * missing
        levels = [1.0 if scale is None else scale for scale in scales] + [1.0] * missing
        try:
            native = self._idle.pop()
        except IndexError:
            native = self._program.new_encoder(self.lanes)
        codes = native.run(audio, [True] * self.lanes, levels, self._n_q)
        self._idle.append(native)
        return [Piece(array, scale, True) for array, scale in zip(codes, scales, strict=False)]

    def scale(self, segment: Segment) -> float | None:
        """Its level, None for models that do not normalise. Raises ValueError for one that is too
        loud to have one."""
        if not self._program.header.normalize:
            return None
        scale = _native.segment_scale(segment.audio)
        if not scale < float("inf"):
            raise ValueError(f"{segment.name}: too loud, the level of a segment overflows float32")
        return scale


class SegmentDecoder:
    """The inverse of SegmentEncoder, for pieces with one number of codebooks."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.lanes = segment_lanes(program)
        self._idle: deque[Any] = deque()

    def __call__(self, group: list[Piece]) -> list[Audio]:
        """The samples [channels, frames * hop] of up to `lanes` whole segments."""
        missing = self.lanes - len(group)
        codes = [piece.codes for piece in group] + [group[0].codes[:, :0].copy()] * missing
        scales = [1.0 if piece.scale is None else piece.scale for piece in group] + [1.0] * missing
        try:
            native = self._idle.pop()
        except IndexError:
            native = self._program.new_decoder(self.lanes)
        audio: list[Audio] = native.run(codes, [True] * self.lanes, scales)
        self._idle.append(native)
        return audio[: len(group)]


class Ordered(Generic[Item, Result]):
    """Runs a function on groups of items, on up to `threads` threads, and hands the results back in
    the order of the items.

    Memory is constant: at most two groups per thread are under way, and the items of another one
    wait for it. After an error, or without flush, `close` leaves no thread behind.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], list[Result]],
        threads: int,
        live: bool = False,
        lanes: int | None = None,
    ) -> None:
        """live: an item does not wait for others of its group; lanes: the most items of a group,
        SEGMENT_LANES if None."""
        self._run = run
        self._threads = threads
        self._batch = 1 if live else threads * (lanes or SEGMENT_LANES)
        self._pool: ThreadPoolExecutor | None = None
        self._items: list[Item] = []
        self._groups: deque[Future[list[Result]]] = deque()

    def push(self, item: Item) -> list[Result]:
        """Add an item; returns results that are ready."""
        self._items.append(item)
        if len(self._items) < self._batch:
            return []
        return self._share_out(0 if self._batch == 1 else self._threads)

    def flush(self) -> list[Result]:
        """The remaining results, of items that no more follow."""
        results = self.drain()
        self.close()
        return results

    def drain(self) -> list[Result]:
        """The results of all items so far."""
        return self._share_out(0)

    def close(self) -> None:
        """Drop what was not begun, and wait for what was."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _share_out(self, keep: int) -> list[Result]:
        """Deal the items out to the threads; returns the results of all but the `keep` newest
        groups."""
        size = max(1, -(-len(self._items) // self._threads))
        groups = [self._items[i : i + size] for i in range(0, len(self._items), size)]
        self._items = []
        if self._threads == 1:
            return [result for group in groups for result in self._run(group)]
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor  # only here: start-up time

            self._pool = ThreadPoolExecutor(self._threads)
        results: list[Result] = []
        self._groups.extend(self._pool.submit(self._run, group) for group in groups)
        while len(self._groups) > keep:
            results += self._groups.popleft().result()
        return results
