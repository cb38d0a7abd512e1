"""Entropy model files: what is read, and that a bad one ends in one clear error. Also run under the
sanitizers."""

from __future__ import annotations

import copy
import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from language_models import (
    Sizes,
    entropy_tensors,
    native_model,
    random_codes,
    random_weights,
    write_entropy_model,
)
from programs import Tensors, to_bfloat16
from test_program_fuzz import HOSTILE, places

from encodec_fast import _native
from encodec_fast.entropy_model import EntropyModel
from encodec_fast.tensor_file import Tensors as StoredTensors

SIZES = Sizes()
KEY = "encodec_fast.entropy"
Change = Callable[[dict[str, Any], Tensors], object]


def parts() -> tuple[dict[str, Any], Tensors]:
    return entropy_tensors(random_weights(0, SIZES), SIZES)


def encoded(model: Any) -> bytes:
    codes = random_codes(0, SIZES.codebooks, 40, SIZES.entries)
    data: bytes = _native.LmCoder(model, SIZES.codebooks, 1).encode([0], [codes])[0]
    return data


def test_what_is_read(tmp_path: Path) -> None:
    header, tensors = parts()
    path = write_entropy_model(tmp_path / "tiny.entropy.safetensors", header, tensors)
    model = EntropyModel.load(path)
    assert (model.name, model.n_codebooks, model.codebook_size) == ("tiny", 3, 19)
    assert model.hash == hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    assert model.tables is not None and model.tables.dtype == np.uint32
    assert np.array_equal(model.tables, tensors["tables"])
    with pytest.raises(ValueError, match="read-only"):
        model.tables[0, 0] = 1
    assert encoded(model.lm) == encoded(native_model(random_weights(0, SIZES), SIZES))


@pytest.mark.parametrize("left_out", ["tables", "lm"])
def test_either_may_be_missing(tmp_path: Path, left_out: str) -> None:
    header, tensors = parts()
    header[left_out] = None
    model = EntropyModel.load(write_entropy_model(tmp_path / "part", header, tensors))
    assert getattr(model, left_out) is None
    assert (model.lm is None) != (model.tables is None)


def test_bfloat16_gives_the_same_bytes(tmp_path: Path) -> None:
    header, tensors = parts()
    half = {
        name: to_bfloat16(a) if a.ndim == 2 and a.dtype == np.float32 else a
        for name, a in tensors.items()
    }
    models = [
        EntropyModel.load(write_entropy_model(tmp_path / "x", header, t)) for t in (tensors, half)
    ]
    assert encoded(models[0].lm) == encoded(models[1].lm)
    assert models[0].hash != models[1].hash


def without(name: str) -> Change:
    return lambda h, t: t.pop(name)


def reshaped(name: str, *shape: int) -> Change:
    return lambda h, t: t.update({name: np.ones(shape, t[name].dtype)})


def changed(name: str, index: Any, value: float) -> Change:
    return lambda h, t: t[name].__setitem__(index, value)


BAD: dict[str, tuple[Change, str]] = {
    "format": (lambda h, t: h.update(format=2), "entropy model format: expected 1, found 2"),
    "name": (lambda h, t: h.update(name="../x"), "not a model name"),
    "no codebooks": (lambda h, t: h.update(codebooks=0), r"codebooks: expected .* 1\.\.1024"),
    "entries": (lambda h, t: h.update(entries=1 << 17), "entries: expected"),
    "more entries": (lambda h, t: h.update(entries=20), "expected"),
    "more codebooks": (lambda h, t: h.update(codebooks=4, tables=None), "'lm.codebooks.3.embed"),
    "nothing": (lambda h, t: h.update(tables=None, lm=None), "tables and lm: expected at least"),
    "no key": (lambda h, t: h.pop("lm"), "not a valid entropy model: KeyError"),
    "list": (lambda h, t: h.update(lm=[1]), "not a valid entropy model: TypeError"),
    "tables' name": (lambda h, t: h.update(tables=3), "no tensor named 3"),
    "tables' type": (lambda h, t: h.update(tables="lm.norm_in.scale"), "expected I32, found 'F32'"),
    "tables' shape": (reshaped("tables", 3, 18), r"tables: expected shape \[3, 19\]"),
    "zero width": (changed("tables", (2, 3), 0), "tables: expected widths of at least 1"),
    "negative width": (changed("tables", (0, 0), -5), "tables: expected widths of at least 1"),
    "wide": (changed("tables", (1, slice(None)), 1 << 20), "sum to at most 16777216"),
    "wrapping": (changed("tables", slice(None), 0x7FFFFFFF), "sum to at most 16777216"),
    "heads": (lambda h, t: h["lm"].update(heads=5), "dim: expected an even multiple of heads"),
    "no heads": (lambda h, t: h["lm"].update(heads=0), "lm: heads: expected"),
    "dim": (lambda h, t: h["lm"].update(dim=24), "norm_in: expected 24 scales"),
    "huge dim": (lambda h, t: h["lm"].update(dim=1 << 20), r"dim: expected 4\.\.4096"),
    "past": (lambda h, t: h["lm"].update(past=1 << 40), "lm: past: expected"),
    "layers": (lambda h, t: h["lm"].update(layers=3), "'lm.layers.2.qkv.weight'"),
    "boolean": (lambda h, t: h["lm"].update(layers=True), "lm: layers: expected"),
    "missing": (without("lm.layers.1.up.bias"), "no tensor named 'lm.layers.1.up.bias'"),
    "rank": (reshaped("lm.layers.0.qkv.weight", 12), "expected 2 dimensions, found 1"),
    "bias' rank": (reshaped("lm.layers.0.qkv.bias", 36, 1), "expected 1 dimensions, found 2"),
    "shape": (reshaped("lm.layers.0.out.weight", 13, 12), r"out: expected a weight \[12, 12\]"),
    "bias": (reshaped("lm.layers.0.up.bias", 19), "bias: expected one value per column"),
    "embedding": (reshaped("lm.codebooks.1.embedding", 19, 12), r"embedding: expected \[20, 12\]"),
    "head": (reshaped("lm.codebooks.1.head.weight", 12, 18), "bias: expected one value"),
    "NaN": (changed("lm.codebooks.0.head.weight", (0, 0), np.nan), "values that are not finite"),
    "infinity": (changed("lm.norm_in.offset", 1, -np.inf), "norm_in.offset: has values that"),
    "mixed": (
        lambda h, t: t.update({"lm.layers.0.up.weight": np.ones((12, 20), np.uint16)}),
        "lm.layers.0: expected all or none of its weights as BF16",
    ),
    "mixed book": (
        lambda h, t: t.update({"lm.codebooks.2.embedding": np.ones((20, 12), np.uint16)}),
        "lm.codebooks.2: expected both or neither of embedding and head as BF16",
    ),
}


@pytest.mark.parametrize("change", BAD)
def test_bad_files(tmp_path: Path, change: str) -> None:
    apply, message = BAD[change]
    header, tensors = parts()
    apply(header, tensors)
    path = write_entropy_model(tmp_path / "bad", header, tensors)
    with pytest.raises(ValueError, match=message) as error:
        EntropyModel.load(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "other"
    for data in (b"", b"x" * 9, b"\0" * 100, b"\xff" * 100, struct.pack("<Q", 2) + b"{}"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="not an entropy model file"):
            EntropyModel.load(path)
    with pytest.raises(OSError):
        EntropyModel.load(tmp_path / "missing")


def exercise(path: Path) -> None:
    """Only ValueErrors may come out of a file."""
    try:
        model = EntropyModel.load(path)
    except ValueError as error:
        assert "\n" not in str(error)
        return
    if model.lm is None:
        return
    n_q, entries = model.n_codebooks, model.codebook_size
    coder = _native.LmCoder(model.lm, n_q, 1)
    codes = random_codes(1, n_q, 5, entries)
    try:
        data = coder.encode([0], [codes])
    except ValueError:
        return
    coder.reset([0])
    assert np.array_equal(coder.decode([0], data, [5])[0], codes)


@pytest.mark.parametrize("seed", range(3))
def test_changed_bytes(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path = tmp_path / "changed"
    original = write_entropy_model(path, *parts()).read_bytes()
    header = 8 + struct.unpack("<Q", original[:8])[0]
    for trial in range(200):
        data = bytearray(original)
        end = header if trial % 5 else len(data)
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(8, end))
            data[at] = rng.choice(np.frombuffer(b'0123456789-.eE"[]{},:ntf\x00\xff', np.uint8))
        if trial % 7 == 0:
            del data[int(rng.integers(len(data))) :]
        path.write_bytes(data)
        exercise(path)


@pytest.mark.parametrize("seed", range(3))
def test_replaced_fields(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    path = tmp_path / "replaced"
    original = write_entropy_model(path, *parts()).read_bytes()
    (length,) = struct.unpack("<Q", original[:8])
    table = json.loads(original[8 : 8 + length])
    header = json.loads(table.pop("__metadata__")[KEY])
    for _ in range(200):
        new_table, new_header = copy.deepcopy((table, header))
        found = list(places(new_header)) * 4 + list(places(new_table))
        for _ in range(int(rng.integers(1, 3))):
            container, key = found[rng.integers(len(found))]
            if rng.random() < 0.8:
                container[key] = HOSTILE[rng.integers(len(HOSTILE))]
            else:
                other, name = found[rng.integers(len(found))]
                container[key] = copy.deepcopy(other[name])
        metadata = {"__metadata__": {KEY: json.dumps(new_header)}}
        text = json.dumps({**metadata, **new_table}).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + original[8 + length :])
        exercise(path)


@pytest.mark.parametrize("codebooks", [1, 5])
def test_random_sizes(tmp_path: Path, codebooks: int) -> None:
    """Any legal sizes work."""
    rng = np.random.default_rng(codebooks)
    for _ in range(20):
        heads = int(rng.integers(1, 5))
        sizes = replace(
            SIZES,
            dim=int(2 * rng.integers(2, 20) * heads),
            heads=heads,
            layers=int(rng.integers(1, 4)),
            past=int(rng.integers(1, 30)),
            entries=int(rng.integers(2, 50)),
            codebooks=codebooks,
            width=int(rng.integers(1, 40)),
        )
        header, tensors = entropy_tensors(random_weights(int(rng.integers(99)), sizes), sizes)
        exercise(write_entropy_model(tmp_path / "sizes", header, tensors))


def test_tensors_that_overlap() -> None:
    """A file of a few megabytes could ask for gigabytes with them."""
    entry = {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}
    tensors = StoredTensors({"one": entry, "other": entry}, memoryview(bytes(100)))
    tensors.take("one")
    with pytest.raises(ValueError, match="tensor other: overlaps another"):
        tensors.take("other")
