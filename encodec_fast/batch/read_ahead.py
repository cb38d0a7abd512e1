"""Items that are read on threads of their own before their samples are asked for, so that a device
does not wait for files, decoders and resamplers."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator

from encodec_fast.audio import Float32
from encodec_fast.batch.items import Item

# Chunks of an item, of about a second each, that may wait to be taken.
DEPTH = 3

Read = Callable[[Item], Iterator[Float32]]


class _Chunks:
    """What one item's reading gives, in order. A thread at a time reads it, as long as there is
    room; who takes from it calls for the next one."""

    def __init__(
        self, chunks: Iterator[Float32], readings: queue.SimpleQueue[_Chunks | None]
    ) -> None:
        self._chunks = chunks
        self._readings = readings
        # Chunks, then what ended them: an error, or None.
        self._ready: deque[Float32 | BaseException | None] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._called = True
        readings.put(self)

    def fill(self) -> None:
        """Read until there is no room, or no more."""
        while not self._ended:  # stopped before its turn: nothing is read
            outcome: Float32 | BaseException | None
            try:
                outcome = next(self._chunks, None)
            except BaseException as error:
                outcome = error
            with self._changed:
                if self._ended:  # by stop()
                    return
                self._ready.append(outcome)
                self._changed.notify()
                self._ended = outcome is None or isinstance(outcome, BaseException)
                self._called = not self._ended and len(self._ready) < DEPTH
                if not self._called:
                    return

    def stop(self) -> None:
        """Whoever waits for a chunk gets an error; nothing more is read."""
        with self._changed:
            self._ended = True
            self._ready.clear()
            self._ready.append(OSError("the run has ended"))
            self._changed.notify()

    def __iter__(self) -> Iterator[Float32]:
        while True:
            with self._changed:
                while not self._ready:
                    self._changed.wait()
                outcome = self._ready.popleft()
                if not self._called and not self._ended:
                    self._called = True
                    self._readings.put(self)
            if isinstance(outcome, BaseException):
                raise outcome
            if outcome is None:
                return
            yield outcome


class ReadAhead:
    """The items of an iterator, each taken with `ahead` of those behind it already being read.

    read: gives an item's chunks; called and advanced on `threads` threads. Memory is constant:
    DEPTH chunks of each item that was begun.
    """

    def __init__(self, items: Iterator[Item], read: Read, threads: int, ahead: int) -> None:
        self._items, self._read, self._ahead = items, read, ahead
        self._waiting: deque[Item] = deque()
        self._begun: dict[str, _Chunks] = {}
        self._closed = False
        self._beginning = threading.Lock()
        self._readings: queue.SimpleQueue[_Chunks | None] = queue.SimpleQueue()
        self._threads = threads
        for _ in range(threads):
            threading.Thread(target=self._work, daemon=True).start()

    def __iter__(self) -> ReadAhead:
        return self

    def __next__(self) -> Item:
        """For one thread at a time; there is none after `close`, when nobody would read it."""
        with self._beginning:
            if self._closed:
                raise StopIteration
            while len(self._waiting) <= self._ahead:
                item = next(self._items, None)
                if item is None:
                    break
                self._begun[item.key] = _Chunks(self._read(item), self._readings)
                self._waiting.append(item)
            if not self._waiting:
                raise StopIteration
            return self._waiting.popleft()

    def chunks(self, item: Item) -> Iterator[Float32]:
        """The chunks of an item that was taken, once; raises as they do."""
        try:
            yield from self._begun[item.key]
        finally:
            del self._begun[item.key]

    def close(self) -> None:
        """Ends the threads, each behind the chunk that it is reading, and whoever waits for one."""
        with self._beginning:
            self._closed = True
        for chunks in list(self._begun.values()):
            chunks.stop()
        for _ in range(self._threads):
            self._readings.put(None)

    def _work(self) -> None:
        while (chunks := self._readings.get()) is not None:
            chunks.fill()
