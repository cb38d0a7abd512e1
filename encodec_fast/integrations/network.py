"""A graph on batches of whole signals of one length."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from encodec_fast import _native
from encodec_fast._native import Audio
from encodec_fast.lanes import Bounds, block_bounds
from encodec_fast.many import RECORDING_LANES
from encodec_fast.segments import SEGMENT_LANES


class Network:
    """Runs a graph on float32 [batch, channels, rows]; may serve many threads at once.

    What a signal gives depends neither on the batch nor on the threads. Graphs that stream take
    signals in blocks, so that what lies between their operations does not grow with the length.
    """

    def __init__(self, graph: _native.Graph) -> None:
        self._graph = graph
        self._lanes = RECORDING_LANES if graph.streams else SEGMENT_LANES
        # Natives that no thread is using, by lanes: their memory is worth keeping.
        self._idle: dict[int, deque[_native.Network]] = {}

    def __call__(self, signals: Audio, threads: int) -> Audio:
        """[batch, channels, rows >= 1] to [batch, out channels, rows * up / down, rounded up]."""
        batch, _, rows = signals.shape
        graph = self._graph
        out = np.empty((batch, graph.out_channels, -(-rows * graph.up // graph.down)), np.float32)
        threads = max(1, min(threads, batch))
        lanes = min(self._lanes, -(-batch // threads))
        groups = [range(i, min(i + lanes, batch)) for i in range(0, batch, lanes)]
        if threads == 1 or len(groups) == 1:
            for group in groups:
                self._run(signals, out, group)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(lambda group: self._run(signals, out, group), groups))
        return out

    def _run(self, signals: Audio, out: Audio, group: range) -> None:
        lanes = len(group)
        idle = self._idle.setdefault(lanes, deque())
        try:
            native = idle.pop()
        except IndexError:
            native = _native.Network(self._graph, lanes)
        position = 0
        for begin, end in self._bounds(signals.shape[2]):
            blocks = [np.ascontiguousarray(signals[item, :, begin:end]) for item in group]
            results = native.run(blocks, [end == signals.shape[2]] * lanes)
            for item, result in zip(group, results, strict=True):
                out[item, :, position : position + result.shape[1]] = result
            position += results[0].shape[1]
        idle.append(native)

    def _bounds(self, rows: int) -> Bounds | Iterator[tuple[int, int]]:
        graph = self._graph
        if not graph.streams:
            return iter([(0, rows)])
        return block_bounds(rows, graph.down, graph.start_rows, last=True)
