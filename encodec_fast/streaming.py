"""Live streams of models without segments: audio in chunks of any length to codes, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from encodec_fast import _native
from encodec_fast._native import Audio, CodeArray
from encodec_fast.lanes import Lanes, block_frames
from encodec_fast.program import Program

STARTS = ("exact", "low_latency")

# As many streams as the native core takes in one batch.
MAX_BATCH = 1 << 16


class StreamEncoder(Lanes[Audio, CodeArray]):
    """Audio to codes, frame by frame (paper 3.1: streamable model); see Codec.stream_encoder.

    With `batch`, that many streams share each read of the weights; any of them may be pushed,
    flushed and reset while the others rest. An encoder belongs to one thread at a time. Raises
    ValueError for a model that codes segments, a batch outside 1..65536 and an unknown start.

    Attribute delay: samples that must follow those of a frame before its codes come, or the end; 0
    for causal models.
    """

    def __init__(self, program: Program, n_q: int, batch: int | None, start: str) -> None:
        low_latency = _check_arguments(program, batch, start, "stream_encoder", "compress_file")
        native = program.new_encoder(batch or 1, low_latency)
        frames = block_frames(program.breadth, batch or 1)
        self._n_q = n_q
        self._channels = program.header.channels
        hop, graph = program.header.hop, program.encoder
        start_rows = hop if low_latency else graph.start_rows
        self.delay = graph.delay * hop
        super().__init__(native, batch, (hop, 1), start_rows, graph.delay, frames)

    @overload
    def push(
        self, chunk: list[npt.NDArray[Any]], streams: Sequence[int] | None = None
    ) -> list[CodeArray]: ...

    @overload
    def push(self, chunk: Any, streams: Sequence[int] | None = None) -> CodeArray: ...

    def push(self, chunk: Any, streams: Sequence[int] | None = None) -> Any:
        """Take float samples [channels, any length] at the model's rate and return the finished
        codes, uint16 [n_q, frames >= 0].

        With `batch`, `streams` names those to advance (distinct indices in 0..batch - 1; None: all
        of them), and `chunk` is either one array [len(streams), channels, length], which gives one
        array [len(streams), n_q, frames], or a list with an array [channels, any length] for each,
        which gives a list of [n_q, frames]. Raises ValueError, and advances nothing, for a wrong
        shape or dtype, samples that are not finite, other indices, a stream that was flushed, and
        for one array where the streams' starts would make different numbers of frames of it.
        """
        return self._push("chunk", chunk, streams)

    def flush(self, streams: Sequence[int] | None = None) -> Any:
        """The codes of the rest of the stream, which ends here: uint16 [n_q, frames]. The last
        frame is completed as the model defines it (docs/program.md).

        With `batch`, a list with those of each of `streams` (None: all), which may differ in
        length. Raises ValueError for a stream that was flushed before, and for other indices.
        """
        return self._flush(streams)

    def _checked(self, name: str, value: Any, lead: tuple[int, ...]) -> Audio:
        return _native.as_audio(name, value, (*lead, self._channels, None))

    def _run_native(self, blocks: list[Audio], last: list[bool]) -> list[CodeArray]:
        codes: list[CodeArray] = self._native.run(blocks, last, self._ones, self._n_q)
        return codes

    def _run_all(self, blocks: Audio) -> CodeArray:
        codes: CodeArray = self._native.run_batch(blocks, self._n_q)
        return codes

    def _nothing_in(self) -> Audio:
        return np.zeros((self._channels, 0), np.float32)

    def _nothing_out(self) -> CodeArray:
        return np.zeros((self._n_q, 0), np.uint16)


class StreamDecoder(Lanes[CodeArray, Audio]):
    """Codes to audio, frame by frame; see Codec.stream_decoder. Batches as in StreamEncoder.

    The number of codebooks is that of the first push, for all streams of a batch, until reset()
    resets all of them: streams that share a call share their codebooks.

    Attribute delay: samples by which the result of the codes so far is shorter than their frames,
    until more codes come, or the end; 0 for causal models.
    """

    def __init__(self, program: Program, batch: int | None, start: str) -> None:
        low_latency = _check_arguments(program, batch, start, "stream_decoder", "decompress_file")
        native = program.new_decoder(batch or 1, low_latency)
        frames = block_frames(program.breadth, batch or 1)
        self._header = program.header
        self._n_q: int | None = None
        start_rows = 1 if low_latency else program.decoder.start_rows
        self.delay = program.decoder.delay
        super().__init__(native, batch, (1, program.header.hop), start_rows, self.delay, frames)

    def reset(self, streams: Sequence[int] | None = None) -> None:
        """Forget everything; the next push begins a new stream. With `batch`, `streams` names those
        to reset (distinct indices; None: all, and the number of codebooks is free again). Raises
        ValueError for other indices."""
        super().reset(streams)
        if streams is None:
            self._n_q = None

    @overload
    def push(
        self, frames: list[npt.NDArray[Any]], streams: Sequence[int] | None = None
    ) -> list[Audio]: ...

    @overload
    def push(self, frames: Any, streams: Sequence[int] | None = None) -> Audio: ...

    def push(self, frames: Any, streams: Sequence[int] | None = None) -> Any:
        """Take codes [n_q, any number of frames] and return the finished samples, float32
        [channels, samples >= 0].

        With `batch`, `streams` names those to advance (distinct indices in 0..batch - 1; None: all
        of them), and `frames` is either one array [len(streams), n_q, frames], which gives one
        array [len(streams), channels, samples], or a list with an array [n_q, any number of frames]
        for each, which gives a list of [channels, samples]. Raises ValueError, and advances
        nothing, for a wrong shape or dtype, codes out of range, a number of codebooks that changes
        or that the model lacks, other indices, a stream that was flushed, and for one array where
        the streams' starts would finish different numbers of its frames.
        """
        return self._push("frames", frames, streams)

    def flush(self, streams: Sequence[int] | None = None) -> Any:
        """The samples of the rest of the stream, which ends here: float32 [channels, samples].

        With `batch`, a list with those of each of `streams` (None: all), which may differ in
        length. Raises ValueError for a stream that was flushed before, and for other indices.
        """
        return self._flush(streams)

    def _arrays(self, name: str, value: Any, lanes: Sequence[int]) -> list[CodeArray]:
        arrays = super()._arrays(name, value, lanes)
        self._fix_codebooks(name, [array.shape[0] for array in arrays])
        return arrays

    def _array_of_all(self, name: str, value: Any) -> CodeArray:
        array = super()._array_of_all(name, value)
        self._fix_codebooks(name, [array.shape[1]])
        return array

    def _fix_codebooks(self, name: str, counts: Sequence[int]) -> None:
        """Checks the numbers of codebooks of arrays, which are from now on that of the batch."""
        n_q = self._n_q
        for found in counts:
            low, high = (1, self._header.n_codebooks) if n_q is None else (n_q, n_q)
            if not low <= found <= high:
                expected = f"{low}..{high}" if n_q is None else f"as before {n_q}"
                raise ValueError(f"{name}: expected {expected} codebooks, found {found}")
            n_q = found
        self._n_q = n_q

    def _checked(self, name: str, value: Any, lead: tuple[int, ...]) -> CodeArray:
        return _native.as_codes(name, value, (*lead, None, None), self._header.codebook_size)

    def _run_native(self, blocks: list[CodeArray], last: list[bool]) -> list[Audio]:
        audio: list[Audio] = self._native.run(blocks, last, self._ones)
        return audio

    def _run_all(self, blocks: CodeArray) -> Audio:
        audio: Audio = self._native.run_batch(blocks)
        return audio

    def _nothing_in(self) -> CodeArray:
        return np.zeros((self._n_q or 1, 0), np.uint16)

    def _nothing_out(self) -> Audio:
        return np.zeros((self._header.channels, 0), np.float32)


def _check_arguments(
    program: Program, batch: int | None, start: str, method: str, instead: str
) -> bool:
    """Whether the start is the low-latency one, of arguments that streams can have."""
    if program.header.segmented:
        raise ValueError(
            f"{method}: model {program.header.name} codes whole segments of "
            f"{program.header.segment_length} samples; use {instead}, which works by segments"
        )
    if batch is not None and (type(batch) is not int or not 1 <= batch <= MAX_BATCH):
        raise ValueError(f"batch: expected None or an integer in 1..{MAX_BATCH}, found {batch!r}")
    if start not in STARTS:
        raise ValueError(f"start: expected {' or '.join(map(repr, STARTS))}, found {start!r}")
    if start == "low_latency" and not program.encoder.causal:
        raise ValueError(
            f"start: model {program.header.name} is not causal, its frames wait for later samples; "
            "expected 'exact', found 'low_latency'"
        )
    return start == "low_latency"
