"""Entropy models: what the version 1 container codes a model's codes with, read without PyTorch.

The format (safetensors with a JSON object in its metadata) is specified in docs/entropy.md.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from encodec_fast import _native
from encodec_fast.store import check_name
from encodec_fast.tensor_file import Kind, Tensors, integer, split, string

FORMAT = 1
METADATA_KEY = "encodec_fast.entropy"
KIND = Kind("an", "entropy model", METADATA_KEY, FORMAT)
# What the widths of one codebook's intervals may sum to.
TOTAL = 1 << 24

Widths = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class EntropyModel:
    """What is known of a model's codes; immutable, shared by all coders.

    `hash` is the beginning (8 hexadecimal digits) of the file's SHA-256; `tables` are the widths
    uint32 [n_codebooks, codebook_size] of the intervals of entropy mode "static", or None; `lm` is
    the native language model of mode "lm", or None.
    """

    name: str
    n_codebooks: int
    codebook_size: int
    hash: str
    tables: Widths | None
    lm: _native.LanguageModel | None

    @staticmethod
    def load(path: str | Path) -> EntropyModel:
        """Read and check an entropy model's file.

        Raises OSError if it cannot be read and ValueError (naming the file and what is wrong) if
        it is none, is damaged, or is of a format that this version does not know.
        """
        data = Path(path).read_bytes()
        try:
            table, metadata, start = split(data, len(data), KIND)
            return _build(metadata, Tensors(table, memoryview(data)[start:]), data)
        except (KeyError, TypeError, OverflowError, AttributeError) as error:
            raise ValueError(f"{path}: not a valid entropy model: {error!r}") from None
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def _build(metadata: dict[str, Any], tensors: Tensors, data: bytes) -> EntropyModel:
    codebooks = integer(metadata["codebooks"], "codebooks", 1, 1024)
    entries = integer(metadata["entries"], "entries", 2, 1 << 16)
    tables, lm = metadata["tables"], metadata["lm"]
    if tables is None and lm is None:
        raise ValueError("tables and lm: expected at least one")
    return EntropyModel(
        name=check_name(string(metadata, "name")),
        n_codebooks=codebooks,
        codebook_size=entries,
        hash=hashlib.sha256(data).hexdigest()[:8],
        tables=None
        if tables is None
        else _widths(tensors.take_integers(tables), codebooks, entries),
        lm=None if lm is None else _language_model(lm, codebooks, entries, tensors),
    )


def _widths(stored: npt.NDArray[np.int32], codebooks: int, entries: int) -> Widths:
    if stored.shape != (codebooks, entries):
        raise ValueError(
            f"tables: expected shape [{codebooks}, {entries}], found {list(stored.shape)}"
        )
    if stored.min() < 1 or stored.sum(axis=1, dtype=np.int64).max() > TOTAL:
        raise ValueError(f"tables: expected widths of at least 1 that sum to at most {TOTAL}")
    widths = stored.astype(np.uint32)
    widths.flags.writeable = False
    return widths


def _language_model(
    lm: dict[str, Any], codebooks: int, entries: int, tensors: Tensors
) -> _native.LanguageModel:
    # The upper limits are the native core's to check.
    dim, heads, layers, past = (
        integer(lm[key], f"lm: {key}", 1, 1 << 20) for key in ("dim", "heads", "layers", "past")
    )
    model = _native.LanguageModel(dim, heads, past, entries, *_norm("lm.norm_in", tensors))
    for index in range(layers):
        prefix = f"lm.layers.{index}"
        weights: list[npt.NDArray[Any]] = []
        for name in ("qkv", "out", "up", "down"):
            weights += _linear(f"{prefix}.{name}", tensors)
        if len({weight.dtype for weight in weights[::2]}) > 1:
            raise ValueError(f"{prefix}: expected all or none of its weights as BF16")
        norms = _norm(f"{prefix}.norm1", tensors) + _norm(f"{prefix}.norm2", tensors)
        model.layer(*weights, *norms)
    for index in range(codebooks):
        prefix = f"lm.codebooks.{index}"
        embedding = _matrix(f"{prefix}.embedding", tensors)
        head, bias = _linear(f"{prefix}.head", tensors)
        if embedding.dtype != head.dtype:
            raise ValueError(f"{prefix}: expected both or neither of embedding and head as BF16")
        model.codebook(embedding, head, bias)
    model.seal()
    return model


def _matrix(name: str, tensors: Tensors) -> npt.NDArray[Any]:
    return _of_rank(name, tensors.take_weight(name), 2)


def _vector(name: str, tensors: Tensors) -> npt.NDArray[np.float32]:
    return _of_rank(name, tensors.take(name), 1)


def _of_rank(name: str, array: npt.NDArray[Any], rank: int) -> npt.NDArray[Any]:
    if array.ndim != rank:
        raise ValueError(f"tensor {name}: expected {rank} dimensions, found {array.ndim}")
    return array


def _linear(name: str, tensors: Tensors) -> list[npt.NDArray[Any]]:
    return [_matrix(f"{name}.weight", tensors), _vector(f"{name}.bias", tensors)]


def _norm(name: str, tensors: Tensors) -> list[npt.NDArray[np.float32]]:
    return [_vector(f"{name}.{part}", tensors) for part in ("scale", "offset")]
