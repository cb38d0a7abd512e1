"""Payloads of `.ecdc` files, version 1: the entropy modes (docs/format.md)."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple, Protocol, cast

import numpy as np

from encodec_fast import _native
from encodec_fast._native import CodeArray
from encodec_fast.chunks import Chunk
from encodec_fast.entropy_model import EntropyModel, Widths
from encodec_fast.program import Program
from encodec_fast.segments import Ordered

# Of a GPU, for each stream that the codec has there: a step of a language model is far smaller than
# a block of the codec. 512 key intervals keep 1.4 GB at 24 kHz, 2.6 GB at 48 kHz.
_DEVICE_LANES = 8


class CodeRun(NamedTuple):
    """Codes of consecutive chunks of one key interval; `key`: they begin with its key chunk,
    otherwise they go on where the last run of their lane ended."""

    key: bool
    chunks: list[CodeArray]


class Run(NamedTuple):
    """The same as it stands in a file."""

    key: bool
    chunks: list[Chunk]


class PayloadCoder(Protocol):
    """Codes of chunks to bytes and back; codes are uint16 [n_q, frames]. A run is on the lane of
    its position."""

    def encode(self, runs: list[CodeRun]) -> list[list[bytes]]:
        """The payloads of the chunks of each run."""

    def decode(self, runs: list[Run]) -> list[list[CodeArray | None]]:
        """The codes of the chunks of each run, None for those that are damaged."""


class _Packed:
    """Entropy mode "none": codes of a fixed number of bits."""

    def __init__(self, bits: int, entries: int, n_q: int) -> None:
        self._bits = bits
        self._entries = entries
        self._n_q = n_q

    def encode(self, runs: list[CodeRun]) -> list[list[bytes]]:
        return [[self._payload(codes) for codes in run.chunks] for run in runs]

    def decode(self, runs: list[Run]) -> list[list[CodeArray | None]]:
        return [[self._codes(chunk) for chunk in run.chunks] for run in runs]

    def _payload(self, codes: CodeArray) -> bytes:
        packer = _native.BitPacker(self._bits)
        return packer.push(np.ascontiguousarray(codes.T).ravel()) + packer.flush()

    def _codes(self, chunk: Chunk) -> CodeArray | None:
        count = chunk.frames * self._n_q
        if len(chunk.payload) != -(-count * self._bits // 8):
            return None
        values = _native.BitUnpacker(self._bits).push(chunk.payload)[:count]
        if self._entries < 1 << self._bits and values.max() >= self._entries:
            return None
        return np.ascontiguousarray(values.reshape(chunk.frames, self._n_q).T)


class _Static:
    """Entropy mode "static": one trained distribution per codebook."""

    def __init__(self, tables: Widths, n_q: int) -> None:
        self._coder = _native.StaticCoder(tables)
        self._n_q = n_q

    def encode(self, runs: list[CodeRun]) -> list[list[bytes]]:
        return [[self._coder.encode(codes) for codes in run.chunks] for run in runs]

    def decode(self, runs: list[Run]) -> list[list[CodeArray | None]]:
        return [[self._codes(chunk) for chunk in run.chunks] for run in runs]

    def _codes(self, chunk: Chunk) -> CodeArray | None:
        try:
            codes: CodeArray = self._coder.decode(chunk.payload, self._n_q, chunk.frames)
        except ValueError:
            return None
        return codes


class _Predicted:
    """Entropy mode "lm": distributions that a language model makes of the frames before."""

    def __init__(self, coder: Any) -> None:
        self._coder = coder

    def encode(self, runs: list[CodeRun]) -> list[list[bytes]]:
        self._coder.reset([lane for lane, run in enumerate(runs) if run.key])
        results: list[list[bytes]] = [[] for _ in runs]
        lanes = list(range(len(runs)))
        while lanes := [i for i in lanes if len(results[i]) < len(runs[i].chunks)]:
            codes = [runs[i].chunks[len(results[i])] for i in lanes]
            for lane, data in zip(lanes, self._coder.encode(lanes, codes), strict=True):
                results[lane].append(data)
        return results

    def decode(self, runs: list[Run]) -> list[list[CodeArray | None]]:
        self._coder.reset([lane for lane, run in enumerate(runs) if run.key])
        results: list[list[CodeArray | None]] = [[] for _ in runs]
        lanes = list(range(len(runs)))
        while lanes := [i for i in lanes if len(results[i]) < len(runs[i].chunks)]:
            chunks = [runs[i].chunks[len(results[i])] for i in lanes]
            payloads = [chunk.payload for chunk in chunks]
            frames = [chunk.frames for chunk in chunks]
            decoded = self._coder.decode(lanes, payloads, frames)
            for lane, codes in zip(lanes, decoded, strict=True):
                results[lane].append(cast("CodeArray | None", codes))
                if codes is None:  # behind it nothing of the run can be known
                    missing = len(runs[lane].chunks) - len(results[lane])
                    results[lane] += [None] * missing
        return results


def check_entropy(entropy: str, model: EntropyModel | None, n_q: int) -> None:
    """Raises ValueError where the model has not what an entropy mode needs; all but "none" need
    one."""
    if model is None:
        return
    if n_q > model.n_codebooks:
        raise ValueError(
            f"entropy: the entropy model of {model.name} has only {model.n_codebooks} codebooks, "
            f"not {n_q}"
        )
    if entropy == "static" and model.tables is None:
        raise ValueError(f"entropy: the entropy model of {model.name} has no static tables")
    if entropy == "lm" and model.lm is None:
        raise ValueError(f"entropy: the entropy model of {model.name} has no language model")


def payload_coder(
    program: Program, entropy: str, model: EntropyModel | None, n_q: int, lanes: int
) -> PayloadCoder:
    """The coder of an entropy mode. Raises as check_entropy."""
    check_entropy(entropy, model, n_q)
    if entropy == "static" and model is not None and model.tables is not None:
        return _Static(model.tables, n_q)
    if entropy == "lm" and model is not None and model.lm is not None:
        return _Predicted(program.new_lm_coder(model.lm, n_q, lanes))
    return _Packed(program.header.codebook_bits, program.header.codebook_size, n_q)


def run_lanes(program: Program, entropy: str, lanes: int) -> int:
    """The runs that a payload coder should have at once: `lanes` with a language model on the CPU,
    more on a GPU; other entropy modes gain nothing."""
    if entropy != "lm":
        return 1
    return lanes if program.device is None else _DEVICE_LANES * program.breadth


class RunCoder:
    """Codes groups of runs, on any number of threads, each with a payload coder.

    lanes: see run_lanes; None: one everywhere, so that on one thread a run can go on where the last
    one ended; otherwise all begin with a key chunk. Attribute lanes: the most runs of a group.
    Raises as check_entropy.
    """

    def __init__(
        self,
        program: Program,
        entropy: str,
        model: EntropyModel | None,
        n_q: int,
        lanes: int | None,
    ) -> None:
        check_entropy(entropy, model, n_q)
        self._predicted = entropy == "lm"
        self.lanes = 1 if lanes is None else run_lanes(program, entropy, lanes)
        self._arguments = program, entropy, model, n_q, self.lanes
        # Coders that no thread is using: their memory is worth keeping from group to group.
        self._idle: deque[PayloadCoder] = deque()

    def encoders(self, threads: int) -> Ordered[CodeRun, list[bytes]]:
        """Runs to their payloads, in order."""
        return Ordered(self._encode, threads if self._predicted else 1, lanes=self.lanes)

    def decoders(self, threads: int) -> Ordered[Run, list[CodeArray | None]]:
        """The inverse; see PayloadCoder.decode."""
        return Ordered(self._decode, threads if self._predicted else 1, lanes=self.lanes)

    def _encode(self, group: list[CodeRun]) -> list[list[bytes]]:
        coder = self._taken()
        results = coder.encode(group)
        self._idle.append(coder)  # not one that failed
        return results

    def _decode(self, group: list[Run]) -> list[list[CodeArray | None]]:
        coder = self._taken()
        results = coder.decode(group)
        self._idle.append(coder)
        return results

    def _taken(self) -> PayloadCoder:
        try:
            return self._idle.pop()
        except IndexError:
            return payload_coder(*self._arguments)
