"""Small random language models, as arrays and in the native core."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from programs import BOOKS, ENTRIES, Tensors, write_tensors

from encodec_fast import _core

Array = npt.NDArray[Any]
CodeArray = npt.NDArray[np.uint16]


@dataclass
class Sizes:
    """Of a language model; `width` is that of the feed-forward blocks."""

    dim: int = 12
    heads: int = 3
    layers: int = 2
    past: int = 9
    entries: int = 19
    codebooks: int = 3
    width: int = 20
    scale: float = field(default=1.0)  # of the weights


def random_weights(seed: int, sizes: Sizes) -> dict[str, Any]:
    """What _core.LanguageModel takes, with values that bfloat16 holds exactly."""
    rng = np.random.default_rng(seed)

    def values(*shape: int, scale: float = 1.0) -> Array:
        drawn = rng.standard_normal(shape) * scale * sizes.scale
        bits = drawn.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
        return bits.view(np.float32)

    def linear(rows: int, columns: int, gain: float = 1.0) -> list[Array]:
        return [values(rows, columns, scale=gain * rows**-0.5), values(columns, scale=0.2)]

    def norm() -> list[Array]:
        return [1 + values(sizes.dim, scale=0.1), values(sizes.dim, scale=0.1)]

    dim = sizes.dim
    layers = [
        [
            *linear(dim, 3 * dim, 1.5),
            *linear(dim, dim),
            *linear(dim, sizes.width),
            *linear(sizes.width, dim),
            *norm(),
            *norm(),
        ]
        for _ in range(sizes.layers)
    ]
    books = [
        [values(sizes.entries + 1, dim), *linear(dim, sizes.entries, 2.0)]
        for _ in range(sizes.codebooks)
    ]
    return {"norm": norm(), "layers": layers, "books": books}


def native_model(weights: dict[str, Any], sizes: Sizes, bf16: bool = False) -> Any:
    """The weights in the native core; `bf16` keeps matrices and embeddings in that form."""

    def stored(array: Array) -> Array:
        if not bf16 or array.ndim < 2:
            return array
        return (array.view(np.uint32) >> 16).astype(np.uint16)

    model = _core.LanguageModel(sizes.dim, sizes.heads, sizes.past, sizes.entries, *weights["norm"])
    for layer in weights["layers"]:
        model.layer(*map(stored, layer))
    for book in weights["books"]:
        model.codebook(*map(stored, book))
    return model


def entropy_tensors(weights: dict[str, Any], sizes: Sizes) -> tuple[dict[str, Any], Tensors]:
    """Header and tensors of an entropy model's file with these weights and random tables."""
    tensors: Tensors = {}

    def put(prefix: str, names: list[str], arrays: list[Array]) -> None:
        tensors.update(zip((f"{prefix}.{name}" for name in names), arrays, strict=True))

    norm = ["scale", "offset"]
    put("lm.norm_in", norm, weights["norm"])
    linear = [f"{m}.{part}" for m in ("qkv", "out", "up", "down") for part in ("weight", "bias")]
    norms = [f"{n}.{part}" for n in ("norm1", "norm2") for part in norm]
    for index, layer in enumerate(weights["layers"]):
        put(f"lm.layers.{index}", linear + norms, layer)
    for index, book in enumerate(weights["books"]):
        put(f"lm.codebooks.{index}", ["embedding", "head.weight", "head.bias"], book)
    rng = np.random.default_rng(0)
    shape = (sizes.codebooks, sizes.entries)
    tensors["tables"] = rng.integers(1, (1 << 24) // sizes.entries, shape, np.int32)
    lm = {"dim": sizes.dim, "heads": sizes.heads, "layers": sizes.layers, "past": sizes.past}
    header = {"format": 1, "name": "tiny", "codebooks": sizes.codebooks, "entries": sizes.entries}
    return {**header, "tables": "tables", "lm": lm}, tensors


def write_entropy_model(path: Path, header: dict[str, Any], tensors: Tensors) -> Path:
    """An entropy model's file."""
    return write_tensors(path, "encodec_fast.entropy", header, tensors)


def tiny_entropy(folder: Path, kind: str) -> Path:
    """The entropy model of the tiny program of that kind (programs.py), beside it."""
    sizes = Sizes(8, 2, 2, 40, ENTRIES, BOOKS, 32)
    header, tensors = entropy_tensors(random_weights(0, sizes), sizes)
    shares = np.random.default_rng(0).dirichlet(np.full(ENTRIES, 0.5), BOOKS)
    tensors["tables"] = (1 + shares * ((1 << 24) - 2 * ENTRIES)).astype(np.int32)
    path = folder / f"tiny_{kind}.entropy.safetensors"
    return write_entropy_model(path, {**header, "name": f"tiny_{kind}"}, tensors)


def random_model(seed: int, sizes: Sizes, bf16: bool = False) -> Any:
    """A native model with random weights."""
    return native_model(random_weights(seed, sizes), sizes, bf16)


def random_codes(seed: int, n_q: int, steps: int, entries: int) -> CodeArray:
    """Codes uint16 [n_q, steps], not all equally frequent."""
    drawn = np.random.default_rng(seed).random((n_q, steps)) ** 2
    codes: CodeArray = (drawn * entries).astype(np.uint16)
    return codes
