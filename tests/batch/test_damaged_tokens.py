"""Damaged and hostile files of tokens: one clear error that names the file, in bounded memory."""

from __future__ import annotations

import io
import json
import struct
import sys
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from token_items import make_tokens, tiny_codec

from encodec_fast.batch import item_json
from encodec_fast.batch.formats import FORMATS
from encodec_fast.batch.tokens import Tokens
from encodec_fast.codec import Codec

NAMES = tuple(FORMATS)


@pytest.fixture
def codec(tmp_path: Path) -> Codec:
    return tiny_codec(tmp_path, "segments")


def written(codec: Codec, folder: Path, name: str) -> bytes:
    if name == "parquet":
        pytest.importorskip("pyarrow", reason="parquet needs the extra tokenize")
    items = [make_tokens(codec, f"key {number}", number) for number in range(3)]
    path = folder / f"whole{FORMATS[name].suffix}"
    FORMATS[name].write(items[:1] if FORMATS[name].per_item else items, path, codec)
    return path.read_bytes()


def read(codec: Codec, folder: Path, name: str, data: bytes) -> list[Tokens]:
    path = folder / f"hostile{FORMATS[name].suffix}"
    path.write_bytes(data)
    return list(FORMATS[name].read(path, codec))


@pytest.mark.parametrize("name", NAMES)
def test_truncated_files(name: str, codec: Codec, tmp_path: Path) -> None:
    data = written(codec, tmp_path, name)
    sizes = {0, 1, 8, len(data) // 3, len(data) // 2, len(data) - 1}
    if name == "ecdc":  # whose last three bytes only help to find the end
        sizes.remove(len(data) - 1)
    if name == "webdataset":  # its end is 1024 zeros, filled up to 10240
        body = len(data.rstrip(b"\0"))
        sizes = {0, 1, 511, 512, 1024, body // 2, body, -(-body // 512) * 512}
    for size in sizes:
        with pytest.raises(ValueError, match=r"hostile\."):
            read(codec, tmp_path, name, data[:size])


@pytest.mark.parametrize("name", NAMES)
def test_foreign_bytes(name: str, codec: Codec, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    others = [written(codec, tmp_path, other) for other in NAMES if other != name]
    for data in [rng.bytes(5000), b"text\n" * 100, b"\xff" * 700, *others]:
        with pytest.raises(ValueError, match=r"hostile\."):
            read(codec, tmp_path, name, data)


@pytest.mark.parametrize("name", NAMES)
def test_changed_files_end_in_one_error_or_in_tokens(
    name: str, codec: Codec, tmp_path: Path
) -> None:
    data = written(codec, tmp_path, name)
    rng = np.random.default_rng(7)
    refused = 0
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(int(rng.integers(1, 4))):
            changed[int(rng.integers(len(changed)))] = int(rng.integers(256))
        try:
            for tokens in read(codec, tmp_path, name, bytes(changed)):
                tokens.to_codes()
        except ValueError as error:
            assert "hostile." in str(error)
            refused += 1
    assert refused > 10


def npy_promise(shape: str, dtype: str = "<u2") -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 100


def shard(table: dict[str, object]) -> bytes:
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text + bytes(16) + struct.pack("<I", 4)


def about(**changes: object) -> dict[str, object]:
    described: dict[str, object] = {"format": 1, "key": "k", "audio_length": 5, "sample_rate": 8000}
    return described | {"model": "m", "model_hash": "", "source": "", "extra": []} | changes


def tensors(**changes: object) -> bytes:
    codes = {"dtype": "U16", "shape": [2, 4], "data_offsets": [0, 16]}
    frames = {"dtype": "I32", "shape": [1], "data_offsets": [16, 20]}
    table = {"__metadata__": {"k/json": json.dumps(about())}, "k/codes": codes}
    return shard(table | {"k/segment_frames": frames} | changes)


def sparse_member() -> bytes:
    """A member that promises 2^40 bytes of zeros and takes none."""
    member = tarfile.TarInfo("k.codes.npy")
    block = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    block[156:157] = tarfile.GNUTYPE_SPARSE
    block[483:495] = b"%011o\0" % (1 << 32)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block) + bytes(10240)


def link_member() -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("k.codes.npy")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    return archive.getvalue()


HOSTILE: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "npy huge": ("npy", lambda: npy_promise("(1099511627776, 1099511627776)"), "truncated"),
    "npy negative": ("npy", lambda: npy_promise("(-2, -8)"), "uint16"),
    "npy objects": ("npy", lambda: npy_promise("(1, 1)", "|O"), "uint16"),
    "npy alone": ("npy", lambda: npy_promise("(1, 50)"), "description"),
    "tensor outside": (
        "safetensors",
        lambda: tensors(
            **{"k/codes": {"dtype": "U16", "shape": [1, 2**60], "data_offsets": [0, 2**61]}}
        ),
        "place does not fit",
    ),
    "tensor missing": ("safetensors", lambda: tensors(**{"k/codes": None}), "codes"),
    "tensor of nobody": ("safetensors", lambda: tensors(other={}), "'other'"),
    "frames that do not fit": (
        "safetensors",
        lambda: tensors(**{"k/codes": {"dtype": "U16", "shape": [1, 8], "data_offsets": [0, 16]}}),
        "segment_frames",
    ),
    "metadata of a model": (
        "safetensors",
        lambda: shard({"__metadata__": {"format": "pt"}}),
        "'format'",
    ),
    "nested": ("safetensors", lambda: struct.pack("<Q", 200000) + b"[" * 200000, "JSON"),
    "tar sparse": ("webdataset", sparse_member, "plain file"),
    "tar link": ("webdataset", link_member, "plain file"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_promises_allocate_nothing(case: str, codec: Codec, tmp_path: Path) -> None:
    name, make, message = HOSTILE[case]
    data = make()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=rf"hostile\..*{message}"):
            read(codec, tmp_path, name, data)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_parquet_of_other_columns(codec: Codec, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="parquet needs the extra tokenize")
    import pyarrow.parquet as pq

    path = tmp_path / "hostile.parquet"
    pq.write_table(pa.table({"key": ["a"], "codes": [[1, 2]]}), path)
    with pytest.raises(ValueError, match=r"hostile\.parquet.*columns"):
        list(FORMATS["parquet"].read(path))


def test_parquet_of_ragged_and_missing_codes(codec: Codec, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="parquet needs the extra tokenize")
    import pyarrow.parquet as pq

    written(codec, tmp_path, "parquet")
    table = pq.read_table(tmp_path / "whole.parquet")
    path = tmp_path / "hostile.parquet"
    for codes in ([[1, 2], [3]], [], [[]], None, [None], [[1, None]]):
        column = pa.array([codes] * len(table), pa.list_(pa.list_(pa.uint16())))
        pq.write_table(table.set_column(1, "codes", column), path)
        with pytest.raises(ValueError, match=r"hostile\.parquet.*codes"):
            list(FORMATS["parquet"].read(path))


def test_parquet_that_unpacks_to_more_than_an_item_has(
    codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pa = pytest.importorskip("pyarrow", reason="parquet needs the extra tokenize")
    import pyarrow.parquet as pq

    written(codec, tmp_path, "parquet")
    table = pq.read_table(tmp_path / "whole.parquet").slice(0, 1)
    codes = np.zeros(20_000_000, np.uint16)
    books = pa.ListArray.from_arrays([0, codes.size], pa.array(codes))
    path = tmp_path / "hostile.parquet"
    pq.write_table(table.set_column(1, "codes", pa.ListArray.from_arrays([0, 1], books)), path)
    del codes, books
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(item_json, "MAX_CODES", 10_000_000)
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(ValueError, match=r"hostile\.parquet.*10000000 codes, found 20000000"):
        list(FORMATS["parquet"].read(path))
    assert pa.default_memory_pool().max_memory() == before


def test_parquet_without_its_library(
    codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "x.parquet").touch()
    with pytest.raises(ValueError, match=r"encodec-fast\[tokenize\]"):
        list(FORMATS["parquet"].read(tmp_path / "x.parquet"))
    with pytest.raises(ValueError, match=r"encodec-fast\[tokenize\]"):
        FORMATS["parquet"].write([make_tokens(codec, "k")], tmp_path / "y.parquet", codec)
