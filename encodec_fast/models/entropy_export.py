"""Turns a language model and interval widths into an entropy model's file (docs/entropy.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from encodec_fast.entropy_model import FORMAT, METADATA_KEY, TOTAL
from encodec_fast.models.export import as_array, stored_as, write_tensors
from encodec_fast.models.lm import LanguageModel, TransformerLayer

Arrays = dict[str, npt.NDArray[np.float32]]


def export_entropy_model(
    config_name: str,
    lm: LanguageModel | None,
    widths: npt.NDArray[np.uint32] | None,
    path: str | Path,
    dtype: str = "float32",
) -> None:
    """Write the entropy model of the model called `config_name`.

    `widths` [codebooks, entries] are the intervals of entropy mode "static": each at least 1, each
    codebook's summing to at most 2^24. `lm` and `widths` may be None, but not both. dtype
    "bfloat16" rounds the language model's matrices and embeddings once and halves the file;
    "float32" keeps them exact. The file appears under its name only when it is complete. Raises
    ValueError for other arguments, and for weights that are not finite.
    """
    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f"dtype: expected 'float32' or 'bfloat16', found {dtype!r}")
    shapes: set[tuple[int, ...]] = set()
    stored: dict[str, Tensor] = {}
    if widths is not None:
        _check_widths(widths)
        shapes.add(widths.shape)
        stored["tables"] = torch.from_numpy(widths.astype(np.int32))
    if lm is not None:
        shapes.add((len(lm.emb), lm.config.codebook_size))
        arrays, matrices = _language_model(lm)
        stored |= stored_as(arrays, frozenset(matrices), dtype)
    if len(shapes) != 1:
        raise ValueError(
            "lm and widths: expected at least one, of the same codebooks and entries, found "
            f"{sorted(shapes) or 'neither'}"
        )
    ((codebooks, entries),) = shapes
    description: dict[str, Any] = {
        "format": FORMAT,
        "name": config_name,
        "codebooks": codebooks,
        "entries": entries,
        "tables": None if widths is None else "tables",
        "lm": None if lm is None else _sizes(lm),
    }
    write_tensors(path, stored, METADATA_KEY, description)


def _check_widths(widths: npt.NDArray[np.uint32]) -> None:
    if widths.ndim != 2 or widths.dtype.kind not in "iu" or not widths.size:
        raise ValueError(
            "widths: expected integers [codebooks, entries], found "
            f"{widths.dtype} {list(widths.shape)}"
        )
    if widths.min() < 1 or widths.sum(axis=1, dtype=np.int64).max() > TOTAL:
        raise ValueError(f"widths: expected at least 1 each and at most {TOTAL} per codebook")


def _sizes(lm: LanguageModel) -> dict[str, int]:
    transformer = lm.transformer
    (dim,) = transformer.norm_in.weight.shape
    layers = [layer for layer in transformer.layers if isinstance(layer, TransformerLayer)]
    heads = {layer.self_attn.num_heads for layer in layers}
    if len(heads) != 1:
        raise ValueError(f"lm: expected layers of the same heads, found {sorted(heads)}")
    return {"dim": dim, "heads": heads.pop(), "layers": len(layers), "past": transformer.reach}


def _language_model(lm: LanguageModel) -> tuple[Arrays, list[str]]:
    """All tensors of the file by name, and which of them are matrices."""
    weights = lm.state_dict()
    arrays: Arrays = {}
    matrices: list[str] = []

    def matrix(name: str, weight: Tensor) -> None:
        arrays[name] = as_array(weight)
        matrices.append(name)

    def linear(name: str, source: str, separator: str = ".") -> None:
        matrix(f"{name}.weight", weights[f"{source}{separator}weight"].T)
        arrays[f"{name}.bias"] = as_array(weights[f"{source}{separator}bias"])

    def norm(name: str, source: str) -> None:
        arrays[f"{name}.scale"] = as_array(weights[f"{source}.weight"])
        arrays[f"{name}.offset"] = as_array(weights[f"{source}.bias"])

    norm("lm.norm_in", "transformer.norm_in")
    for index in range(len(lm.transformer.layers)):
        name, source = f"lm.layers.{index}", f"transformer.layers.{index}"
        linear(f"{name}.qkv", f"{source}.self_attn.in_proj", "_")
        linear(f"{name}.out", f"{source}.self_attn.out_proj")
        linear(f"{name}.up", f"{source}.linear1")
        linear(f"{name}.down", f"{source}.linear2")
        norm(f"{name}.norm1", f"{source}.norm1")
        norm(f"{name}.norm2", f"{source}.norm2")
    for index in range(len(lm.emb)):
        matrix(f"lm.codebooks.{index}.embedding", weights[f"emb.{index}.weight"])
        linear(f"lm.codebooks.{index}.head", f"linears.{index}")
    return arrays, matrices
