"""Live streams of causal models: audio in chunks of any length to codes, and back.

What a stream returns, joined, never depends on how its input was cut.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from encodec_fast import _native
from encodec_fast._native import Audio, CodeArray
from encodec_fast.program import Program

STARTS = ("exact", "low_latency")

# Frames per native call: activations of one block should stay in the second cache level.
BLOCK_FRAMES = 16

Array = TypeVar("Array", bound=npt.NDArray[Any])


class _Stream(ABC, Generic[Array]):
    """Collects input until it makes whole blocks and feeds them to a batch of native streams.

    `unit` is the input length of one frame (hop samples, or one frame of codes), `start` the length
    the first block needs.
    """

    def __init__(self, batch: int | None, unit: int, start: int) -> None:
        self._batch = batch
        self._unit = unit
        self._start = start
        self.reset()

    def reset(self) -> None:
        """Forget everything; the next push begins a new stream."""
        self._pending: Array | None = None
        self._started = False
        self._flushed = False
        self._failed = False

    @abstractmethod
    def _run(self, block: Array, last: bool) -> npt.NDArray[Any]:
        """Pass one block [..., length] to the native streams."""

    def _check_open(self) -> None:
        if self._flushed:
            raise ValueError("stream: was flushed; call reset() to begin a new one")
        if self._failed:  # in the midst of a block: what it did to the state is unknown
            raise ValueError(
                "stream: an earlier call failed (call reset()), or another thread is in one"
            )

    def _feed(self, chunk: Array, last: bool) -> list[npt.NDArray[Any]]:
        """Run what is ready of the pending input and `chunk` (both [..., length])."""
        self._failed = True  # until the end
        data: Any = chunk
        if self._pending is not None and self._pending.shape[-1]:
            data = np.concatenate([self._pending, chunk], axis=-1)
        out, position, total = [], 0, data.shape[-1]
        while True:
            size = min(total - position, BLOCK_FRAMES * self._unit)
            if not self._started:
                size = min(total, max(self._start, BLOCK_FRAMES * self._unit))
            final = last and position + size == total
            if not final:
                size -= size % self._unit
                if size == 0 or (not self._started and size < self._start):
                    break
            out.append(self._run(data[..., position : position + size], final))
            self._started = True
            position += size
            if final:
                break
        self._pending = data[..., position:].copy()
        self._failed = False
        return out


class StreamEncoder(_Stream[Audio]):
    """Audio to codes, frame by frame (paper 3.1: streamable model); see Codec.stream_encoder.

    `batch` streams advance together (None: one, without the leading axis). A stream belongs to one
    thread at a time.
    """

    def __init__(self, program: Program, n_q: int, batch: int | None, start: str) -> None:
        _check_causal(program, "stream_encoder", "compress_file")
        self._native = _native.Encoder(
            program.encoder, program.codebooks, batch or 1, _low_latency(start)
        )
        self._n_q = n_q
        self._channels = program.header.channels
        super().__init__(
            batch, program.header.hop, 1 if start == "low_latency" else program.encoder.start_rows
        )

    def reset(self) -> None:
        """Forget everything; the next push begins a new stream."""
        super().reset()
        self._native.reset()

    def push(self, chunk: Any) -> CodeArray:
        """Take float samples [channels, any length] at the model's rate; with `batch`, the same
        with a leading batch axis. Returns the finished codes, uint16 [n_q, frames >= 0] (with
        `batch` [batch, n_q, frames]). Raises ValueError for a wrong shape or dtype, samples that
        are not finite, or a stream that was flushed.
        """
        self._check_open()
        lead = () if self._batch is None else (self._batch,)
        audio = _native.as_audio("chunk", chunk, (*lead, self._channels, None))
        return self._join(self._feed(audio, last=False))

    def flush(self) -> CodeArray:
        """The codes of the rest of the stream, which ends here: the last frame is completed as the
        model defines it (docs/program.md). Shape as `push`. Raises ValueError if flushed before."""
        self._check_open()
        lead = () if self._batch is None else (self._batch,)
        nothing = np.zeros((*lead, self._channels, 0), np.float32)
        out = self._feed(nothing, last=True)
        self._flushed = True
        return self._join(out)

    def _run(self, block: Audio, last: bool) -> CodeArray:
        blocks = [np.ascontiguousarray(b) for b in (block if self._batch else [block])]
        count = len(blocks)
        codes = self._native.run(blocks, [last] * count, [1.0] * count, self._n_q)
        return np.stack(codes) if self._batch else codes[0]

    def _join(self, parts: list[npt.NDArray[Any]]) -> CodeArray:
        if len(parts) == 1:
            return parts[0]
        lead = () if self._batch is None else (self._batch,)
        return np.concatenate([np.zeros((*lead, self._n_q, 0), np.uint16), *parts], axis=-1)


class StreamDecoder(_Stream[CodeArray]):
    """Codes to audio, frame by frame; see Codec.stream_decoder. A stream belongs to one thread at
    a time, and its number of codebooks is that of the first push."""

    def __init__(self, program: Program, batch: int | None, start: str) -> None:
        _check_causal(program, "stream_decoder", "decompress_file")
        self._native = _native.Decoder(
            program.decoder, program.codebooks, batch or 1, _low_latency(start)
        )
        self._header = program.header
        super().__init__(batch, 1, 1 if start == "low_latency" else program.decoder.start_rows)

    def reset(self) -> None:
        """Forget everything; the next push begins a new stream."""
        super().reset()
        self._native.reset()

    def push(self, frames: Any) -> Audio:
        """Take codes [n_q, any number of frames]; with `batch`, the same with a leading batch
        axis. Returns the finished samples, float32 [channels, samples >= 0] (with `batch`
        [batch, channels, samples]). Raises ValueError for a wrong shape, codes out of range, a
        number of codebooks that changes or that the model lacks, or a stream that was flushed.
        """
        self._check_open()
        lead = () if self._batch is None else (self._batch,)
        codes = _native.as_codes("frames", frames, (*lead, None, None), self._header.codebook_size)
        expected = range(1, self._header.n_codebooks + 1)
        if self._pending is not None:
            expected = range(self._pending.shape[-2], self._pending.shape[-2] + 1)
        if codes.shape[-2] not in expected:
            raise ValueError(
                f"frames: expected {expected[0]}..{expected[-1]} codebooks, found {codes.shape[-2]}"
            )
        return self._join(self._feed(codes, last=False))

    def flush(self) -> Audio:
        """The samples of the rest of the stream, which ends here. Shape as `push`. Raises
        ValueError if flushed before."""
        self._check_open()
        out = []
        if self._pending is not None:
            out = self._feed(self._pending[..., :0], last=True)
        self._flushed = True
        return self._join(out)

    def _run(self, block: CodeArray, last: bool) -> Audio:
        blocks = [np.ascontiguousarray(b) for b in (block if self._batch else [block])]
        audio = self._native.run(blocks, [last] * len(blocks), [1.0] * len(blocks))
        return np.stack(audio) if self._batch else audio[0]

    def _join(self, parts: list[npt.NDArray[Any]]) -> Audio:
        if len(parts) == 1:
            return parts[0]
        lead = () if self._batch is None else (self._batch,)
        nothing = np.zeros((*lead, self._header.channels, 0), np.float32)
        return np.concatenate([nothing, *parts], axis=-1)


def _low_latency(start: str) -> bool:
    if start not in STARTS:
        raise ValueError(f"start: expected {' or '.join(map(repr, STARTS))}, found {start!r}")
    return start == "low_latency"


def _check_causal(program: Program, method: str, instead: str) -> None:
    if not program.encoder.causal:
        raise ValueError(
            f"{method}: model {program.header.name} codes whole segments of "
            f"{program.header.segment_length} samples; use {instead}, which works by segments"
        )
