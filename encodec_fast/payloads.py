"""Payloads of `.ecdc` files, version 1: the entropy modes (docs/format.md)."""

from __future__ import annotations

from typing import NamedTuple, Protocol, cast

import numpy as np

from encodec_fast import _native
from encodec_fast._native import CodeArray
from encodec_fast.chunks import Chunk
from encodec_fast.entropy_model import EntropyModel
from encodec_fast.program import Program


class Run(NamedTuple):
    """Consecutive chunks of one key interval; `key`: they begin with its key chunk, otherwise they
    go on where the last run ended."""

    key: bool
    chunks: list[Chunk]


class PayloadCoder(Protocol):
    """Codes of chunks to bytes and back; codes are uint16 [n_q, frames]."""

    def encode(self, codes: CodeArray, key: bool) -> bytes: ...

    def decode(self, runs: list[Run]) -> list[list[CodeArray | None]]:
        """The codes of the chunks of each run, None for those that are damaged."""


class _Packed:
    """Entropy mode "none": codes of a fixed number of bits."""

    def __init__(self, bits: int, entries: int, n_q: int) -> None:
        self._bits = bits
        self._entries = entries
        self._n_q = n_q

    def encode(self, codes: CodeArray, key: bool) -> bytes:
        packer = _native.BitPacker(self._bits)
        return packer.push(np.ascontiguousarray(codes.T).ravel()) + packer.flush()

    def decode(self, runs: list[Run]) -> list[list[CodeArray | None]]:
        return [[self._codes(chunk) for chunk in run.chunks] for run in runs]

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

    def __init__(self, model: EntropyModel, n_q: int) -> None:
        if model.tables is None:
            raise ValueError(f"entropy: the entropy model of {model.name} has no static tables")
        self._coder = _native.StaticCoder(model.tables)
        self._n_q = n_q

    def encode(self, codes: CodeArray, key: bool) -> bytes:
        data: bytes = self._coder.encode(codes)
        return data

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

    def __init__(self, model: EntropyModel, n_q: int, lanes: int) -> None:
        if model.lm is None:
            raise ValueError(f"entropy: the entropy model of {model.name} has no language model")
        self._coder = _native.LmCoder(model.lm, n_q, lanes)

    def encode(self, codes: CodeArray, key: bool) -> bytes:
        if key:
            self._coder.reset([0])
        (data,) = self._coder.encode([0], [codes])
        return data

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


def payload_coder(
    program: Program, entropy: str, model: EntropyModel | None, n_q: int, lanes: int
) -> PayloadCoder:
    """The coder of an entropy mode; all but "none" need a model. Raises ValueError where the model
    has not what it needs."""
    if model is not None and n_q > model.n_codebooks:
        raise ValueError(
            f"entropy: the entropy model of {model.name} has only {model.n_codebooks} codebooks, "
            f"not {n_q}"
        )
    if model is None:
        return _Packed(program.header.codebook_bits, program.header.codebook_size, n_q)
    return _Static(model, n_q) if entropy == "static" else _Predicted(model, n_q, lanes)
