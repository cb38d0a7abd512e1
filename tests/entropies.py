"""Small random entropy models, written by hand, for the programs of programs.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from programs import BOOKS, ENTRIES, Tensors, write_tensors

DIM, HEADS, LAYERS, PAST = 8, 2, 2, 40


def describe(name: str, seed: int = 0) -> tuple[dict[str, Any], Tensors]:
    """Metadata and tensors of an entropy model with tables and a language model."""
    rng = np.random.default_rng(seed)
    tensors: Tensors = {}

    def linear(key: str, rows: int, columns: int, scale: float = 1.0) -> None:
        weight = scale * rng.standard_normal((rows, columns)) / rows**0.5
        tensors[f"{key}.weight"] = weight.astype(np.float32)
        tensors[f"{key}.bias"] = rng.standard_normal(columns).astype(np.float32) / 4

    def norm(key: str) -> None:
        tensors[f"{key}.scale"] = 1 + rng.standard_normal(DIM).astype(np.float32) / 4
        tensors[f"{key}.offset"] = rng.standard_normal(DIM).astype(np.float32) / 4

    norm("lm.norm_in")
    for layer in range(LAYERS):
        key = f"lm.layers.{layer}"
        for part, rows, columns in (
            ("qkv", DIM, 3 * DIM), ("out", DIM, DIM), ("up", DIM, 4 * DIM), ("down", 4 * DIM, DIM)
        ):  # fmt: skip
            linear(f"{key}.{part}", rows, columns)
        norm(f"{key}.norm1")
        norm(f"{key}.norm2")
    for book in range(BOOKS):
        key = f"lm.codebooks.{book}"
        embedding = rng.standard_normal((ENTRIES + 1, DIM))
        tensors[f"{key}.embedding"] = embedding.astype(np.float32)
        linear(f"{key}.head", DIM, ENTRIES, 3.0)
    shares = rng.dirichlet(np.full(ENTRIES, 0.5), BOOKS) * ((1 << 24) - 2 * ENTRIES)
    tensors["tables"] = 1 + shares.astype(np.int32)
    metadata = {
        "format": 1,
        "name": name,
        "codebooks": BOOKS,
        "entries": ENTRIES,
        "tables": "tables",
        "lm": {"dim": DIM, "heads": HEADS, "layers": LAYERS, "past": PAST},
    }
    return metadata, tensors


def tiny_entropy(folder: Path, kind: str) -> Path:
    """The entropy model of the tiny program of that kind, in its folder."""
    name = f"tiny_{kind}"
    metadata, tensors = describe(name)
    path = folder / f"{name}.entropy.safetensors"
    return write_tensors(path, "encodec_fast.entropy", metadata, tensors)
