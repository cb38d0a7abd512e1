"""Streams on the lanes of one native object: what waits for whole blocks, who goes on, who rests.

What a stream returns, joined, never depends on how its input was cut or on the streams beside it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

# Frames per native call: the weights of the operations at frame rate are read once for all of them.
BLOCK_FRAMES = 64

# What a stream of a batch is ready for.
_FRESH, _STARTED, _FLUSHED, _FAILED = range(4)

Bounds = list[tuple[int, int]]  # where blocks begin and end
In = TypeVar("In", bound=npt.NDArray[Any])
Out = TypeVar("Out", bound=npt.NDArray[Any])


def block_frames(breadth: int, lanes: int) -> int:
    """Frames of a block where `lanes` streams share a call; breadth: see Program."""
    return BLOCK_FRAMES * max(1, breadth // lanes)


def block_bounds(
    total: int, unit: int, first: int, last: bool, frames: int = BLOCK_FRAMES
) -> Bounds:
    """Cuts `total` rows of one stream into blocks of `frames` frames for native calls.

    `unit` is the rows of a frame; `first` those that the next block needs at least, a multiple of
    it. Rows behind the last bound wait for more; where the stream ends with them (`last`) there are
    none, and its last block may be of any length.
    """
    bounds = []
    position = 0
    while position < total:
        end = min(total, position + max(first, frames * unit))
        if not last or end < total:
            end -= (end - position) % unit
            if end - position < first:
                break
        bounds.append((position, end))
        position, first = end, unit
    return bounds


class Lanes(ABC, Generic[In, Out]):
    """`batch` streams (None: one, without the leading axis) on the lanes of one native object.

    Each keeps the input that makes no whole block yet. `frame` is the lengths of input and result
    of one frame (hop samples and one frame of codes, or the reverse), `start` the length that a
    stream's first block needs, `delay` how much of the result waits for more input, or the end,
    `frames` the most that a stream brings to one native call.
    """

    def __init__(
        self,
        native: Any,
        batch: int | None,
        frame: tuple[int, int],
        start: int,
        delay: int,
        frames: int = BLOCK_FRAMES,
    ) -> None:
        self._native = native
        self._frames = frames
        self._batch = batch
        self._unit, self._result_unit = frame
        self._start = start
        self._delay = delay
        self._state = [_FRESH] * (batch or 1)
        # What waits: one array or None of each stream, or one array [batch, height, length] of all.
        self._held: list[In | None] | npt.NDArray[Any] = [None] * (batch or 1)
        self._ones = [1.0] * (batch or 1)  # the scales of models that do not normalise

    def reset(self, streams: Sequence[int] | None = None) -> None:
        """Forget everything; the next push begins a new stream. With `batch`, `streams` names those
        to reset (distinct indices; None: all). Raises ValueError for other indices."""
        lanes = self._selected(streams)
        if streams is None:
            self._native.reset()
            self._state, self._held = [_FRESH] * len(lanes), [None] * len(lanes)
            return
        held = self._held_by_each()
        for lane in lanes:
            self._native.reset(lane)
            self._state[lane] = _FRESH
            held[lane] = None

    @abstractmethod
    def _checked(self, name: str, value: Any, lead: tuple[int, ...]) -> In:
        """The argument `name` as an array [*lead, height, any length]."""

    @abstractmethod
    def _run_native(self, blocks: list[In], last: list[bool]) -> list[Out]:
        """Pass one block per stream to the native core; streams with an empty one rest."""

    @abstractmethod
    def _run_all(self, blocks: In) -> Out:
        """Pass blocks [batch, height, length] of all streams to the native core at once."""

    @abstractmethod
    def _nothing_in(self) -> In:
        """An empty block."""

    @abstractmethod
    def _nothing_out(self) -> Out:
        """What a stream returns that has finished nothing."""

    def _selected(self, streams: Sequence[int] | None) -> Sequence[int]:
        if streams is None:
            return range(len(self._state))
        if self._batch is None:
            raise ValueError("streams: expected None where there is no batch")
        try:
            indices = list(streams)
        except TypeError:
            raise ValueError(f"streams: expected indices, found {streams!r}") from None
        for index in indices:
            whole = isinstance(index, (int, np.integer)) and not isinstance(index, bool)
            if not whole or not 0 <= index < self._batch:
                expected = f"indices in 0..{self._batch - 1}"
                raise ValueError(f"streams: expected {expected}, found {index!r}")
        if len(set(indices)) < len(indices):
            raise ValueError(f"streams: expected distinct indices, found {indices}")
        return [int(index) for index in indices]

    def _open(self, streams: Sequence[int] | None) -> Sequence[int]:
        """The selected streams, all of which can go on."""
        lanes = self._selected(streams)
        for lane in lanes:
            state = self._state[lane]
            if state <= _STARTED:
                continue
            name, again = "stream", "reset()"
            if self._batch is not None:
                name, again = f"stream {lane}", f"reset([{lane}])"
            if state == _FLUSHED:
                raise ValueError(f"{name}: was flushed; call {again} to begin a new one")
            raise ValueError(  # in the midst of a block: what it did to the state is unknown
                f"{name}: an earlier call failed (call {again}), or another thread is in one"
            )
        return lanes

    def _arrays(self, name: str, value: Any, lanes: Sequence[int]) -> list[In]:
        """The argument `name` as one array [height, length] per stream."""
        if self._batch is None:
            return [self._checked(name, value, ())]
        if not isinstance(value, (list, tuple)):
            return list(self._checked(name, value, (len(lanes),)))
        if len(value) != len(lanes):
            expected = f"one array per stream ({len(lanes)})"
            raise ValueError(f"{name}: expected {expected}, found {len(value)}")
        return [self._checked(f"{name}[{i}]", item, ()) for i, item in enumerate(value)]

    def _array_of_all(self, name: str, value: Any) -> In:
        """The argument `name` as one array [batch, height, length]."""
        return self._checked(name, value, (len(self._state),))

    def _push(self, name: str, value: Any, streams: Sequence[int] | None) -> Any:
        """Feed the argument `name`; the results have its form."""
        if self._batch is not None and streams is None and not isinstance(value, (list, tuple)):
            held = self._held_in_step()
            if held is not None:
                return self._push_in_step(self._array_of_all(name, value), held)
        lanes = self._open(streams)
        data = self._with_held(lanes, self._arrays(name, value, lanes))
        bounds = self._bounds(lanes, data, last=False)
        if self._batch is None:
            return self._feed(lanes, data, bounds, last=False)[0]
        if isinstance(value, (list, tuple)):
            return self._feed(lanes, data, bounds, last=False)
        done = {self._done(lane, cuts) for lane, cuts in zip(lanes, bounds, strict=True)}
        if len(done) > 1:
            least, most = (length / self._result_unit for length in (min(done), max(done)))
            found = f"{least:g} to {most:g} frames would be done"
            raise ValueError(
                f"{name}: the streams are not in step ({found}); push a list of arrays"
            )
        results = self._feed(lanes, data, bounds, last=False)
        return _stacked(results) if results else self._nothing_out()[np.newaxis][:0]

    def _held_in_step(self) -> In | None:
        """What the streams hold back [batch, height, length], if all can go on alike."""
        state = self._state[0]
        if state > _STARTED or self._state.count(state) < len(self._state):
            return None
        if isinstance(self._held, list):
            each = [self._nothing_in() if held is None else held for held in self._held]
            if len({held.shape[1] for held in each}) > 1:
                return None
            self._held = _stacked(each)
        together: Any = self._held
        held_by_all: In = together
        return held_by_all

    def _held_by_each(self) -> list[In | None]:
        """What every stream holds back, to be changed in place."""
        if not isinstance(self._held, list):
            nothing = self._held.shape[2] == 0
            self._held = [None] * len(self._state) if nothing else list(self._held)
        return self._held

    def _push_in_step(self, array: In, held: In) -> Out:
        """As _feed for all streams, which are in the same state: they cost what one does."""
        state, first = self._state[0], self._start
        if state == _STARTED:
            first = self._unit
        data: Any = np.concatenate([held, array], axis=2) if held.shape[2] else array
        bounds = block_bounds(data.shape[2], self._unit, first, False, self._frames)
        self._state = [_FAILED] * len(self._state)  # until the end
        parts = []
        for begin, end in bounds:
            block: Any = np.ascontiguousarray(data[:, :, begin:end])
            parts.append(self._run_all(block))
        self._held = data[:, :, bounds[-1][1] if bounds else 0 :].copy()
        self._state = [_STARTED if bounds else state] * len(self._state)
        if len(parts) == 1:
            return parts[0]
        nothing = [self._nothing_out()] * len(self._state)
        joined: Any = np.concatenate(parts, axis=2) if parts else _stacked(nothing)
        result: Out = joined
        return result

    def _done(self, lane: int, cuts: Bounds) -> int:
        """The length of the result of a stream's next blocks."""
        if not cuts:
            return 0
        held_back = self._delay if self._state[lane] == _FRESH else 0
        return cuts[-1][1] // self._unit * self._result_unit - held_back

    def _flush(self, streams: Sequence[int] | None) -> Any:
        lanes = self._open(streams)
        data = self._with_held(lanes, [self._nothing_in()] * len(lanes))
        results = self._feed(lanes, data, self._bounds(lanes, data, last=True), last=True)
        return results[0] if self._batch is None else results

    def _with_held(self, lanes: Sequence[int], arrays: list[In]) -> list[In]:
        """The arrays behind what their streams held back."""
        by_each = self._held_by_each()
        held: list[Any] = [by_each[lane] for lane in lanes]
        data: list[Any] = [
            array if before is None else np.concatenate([before, array], axis=1)
            for before, array in zip(held, arrays, strict=True)
        ]
        return data

    def _bounds(self, lanes: Sequence[int], data: list[In], last: bool) -> list[Bounds]:
        bounds = []
        known: dict[tuple[int, int], Bounds] = {}  # most streams are in step
        for lane, array in zip(lanes, data, strict=True):
            key = (array.shape[1], self._unit if self._state[lane] == _STARTED else self._start)
            if key not in known:
                known[key] = block_bounds(key[0], self._unit, key[1], last, self._frames)
            # What a stream holds back comes out at its end, even where nothing else is left.
            ends = last and self._delay > 0 and self._state[lane] == _STARTED
            bounds.append(known[key] or ([(0, 0)] if ends else []))
        return bounds

    def _feed(
        self, lanes: Sequence[int], data: list[In], bounds: list[Bounds], last: bool
    ) -> list[Out]:
        """Run every stream's blocks of its data, those of the same turn in one native call."""
        before = [self._state[lane] for lane in lanes]
        for lane in lanes:
            self._state[lane] = _FAILED  # until the end
        parts: list[list[Out]] = [[] for _ in lanes]
        for turn in range(max(map(len, bounds), default=0)):
            blocks, ends = [self._nothing_in()] * len(self._state), [False] * len(self._state)
            running = [i for i, cuts in enumerate(bounds) if turn < len(cuts)]
            for i in running:
                begin, end = bounds[i][turn]
                block: Any = data[i]
                if end - begin < block.shape[1]:
                    block = np.ascontiguousarray(block[:, begin:end])
                blocks[lanes[i]] = block
                ends[lanes[i]] = last and turn + 1 == len(bounds[i])
            results = self._run_native(blocks, ends)
            for i in running:
                parts[i].append(results[lanes[i]])
        held = self._held_by_each()
        for lane, array, cuts, state in zip(lanes, data, bounds, before, strict=True):
            done = cuts[-1][1] if cuts else 0
            rest: Any = array[:, done:].copy() if done < array.shape[1] else None
            held[lane] = rest
            self._state[lane] = _FLUSHED if last else _STARTED if cuts else state
        return [part[0] if len(part) == 1 else self._joined(part) for part in parts]

    def _joined(self, parts: list[Out]) -> Out:
        whole: Any = np.concatenate(parts, axis=1) if parts else self._nothing_out()
        joined: Out = whole
        return joined


def _stacked(arrays: list[Any]) -> Any:
    """As np.stack of one array or more, in a quarter of its time."""
    return np.concatenate(arrays).reshape(len(arrays), *arrays[0].shape)
