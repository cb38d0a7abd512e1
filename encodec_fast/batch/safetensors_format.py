"""Tokens as safetensors shards: any item can be loaded without reading the others.

Of an item called KEY: the tensors KEY/codes (U16), KEY/segment_frames (I32), KEY/scales (F32, where
there are any) and KEY/extra.NAME (U8, NAME percent-encoded); the rest of its description is the
metadata KEY/json.
"""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Iterable, Iterator
from typing import IO, Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from encodec_fast.batch import item_json
from encodec_fast.batch.arrays import bytes_left, read_exactly
from encodec_fast.batch.tokens import Tokens
from encodec_fast.codec import Codec

# About 500 bytes an item. The readers of others stop at 100 MB.
MAX_HEADER = 1 << 26
# The widest first, and a padded header: readers that map the file find every tensor aligned.
_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "I32": np.dtype("<i4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
}
_IN_MEMORY = 1 << 24
_FURTHEST = 10**15  # no offset has more digits


class _Tensors:
    """Tensors of one dtype, kept aside until the header can be written."""

    def __init__(self, dtype: str, file: IO[bytes]) -> None:
        self.file = file
        self.dtype = dtype
        self.entries: list[tuple[str, list[int], int]] = []  # name, shape, bytes
        self.size = 0

    def add(self, name: str, values: Any) -> None:
        array = np.ascontiguousarray(values, _DTYPES[self.dtype])
        self.file.write(array.tobytes())
        self.entries.append((name, list(array.shape), array.nbytes))
        self.size += array.nbytes


def write(items: Iterable[Tokens], stream: IO[bytes], codec: Codec) -> None:
    metadata: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        tensors = {dtype: _Tensors(dtype, stack.enter_context(_spool())) for dtype in _DTYPES}
        for tokens in items:
            text, entries = _entries(tokens)
            if (name := f"{tokens.key}/json") in metadata:
                raise ValueError(f"item {tokens.key!r}: expected different keys, found it twice")
            metadata[name] = text
            for dtype, name, values in entries:
                tensors[dtype].add(name, values)
        stream.write(_header(metadata, list(tensors.values())))
        for part in tensors.values():
            part.file.seek(0)
            shutil.copyfileobj(part.file, stream)


def check(tokens: Tokens, count: int) -> None:
    """Raises ValueError for an item that takes more than its part of the header of a shard of
    `count`: whether it is refused must not depend on what the others take."""
    text, entries = _entries(tokens)
    table: dict[str, Any] = {"__metadata__": {f"{tokens.key}/json": text}}
    for dtype, name, values in entries:
        offsets = [_FURTHEST] * 2
        table[name] = {"dtype": dtype, "shape": np.shape(values), "data_offsets": offsets}
    size, most = len(item_json.dump(table)), MAX_HEADER // count
    if size > most:
        raise ValueError(
            f"expected an item that takes at most {most} bytes of the header of a shard of {count} "
            f"(key, source, names of extras), found {size}: smaller shards leave more for each"
        )


def _entries(tokens: Tokens) -> tuple[str, list[tuple[str, str, Any]]]:
    """What the metadata of an item is, and dtype, name and values of its tensors."""
    about = item_json.describe(tokens)
    key = tokens.key
    entries = [
        ("U16", f"{key}/codes", tokens.codes),
        ("I32", f"{key}/segment_frames", about.pop("segment_frames")),
    ]
    if (scales := about.pop("scales")) is not None:
        entries.append(("F32", f"{key}/scales", scales))
    for extra in about["extra"]:
        data = np.frombuffer(tokens.extra[extra], np.uint8)
        entries.append(("U8", _extra_name(key, extra), data))
    return item_json.dump(about).decode(), entries


def _spool() -> IO[bytes]:
    import tempfile  # only here: start-up time

    return tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)


def _extra_name(key: str, extra: str) -> str:
    # Without a slash, so that what stands behind the last one tells a tensor's kind.
    return f"{key}/extra.{quote(extra, safe='')}"


def _header(metadata: dict[str, str], parts: list[_Tensors]) -> bytes:
    table: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    for part in parts:
        for name, shape, size in part.entries:
            offsets = [at, at + size]
            table[name] = {"dtype": part.dtype, "shape": shape, "data_offsets": offsets}
            at += size
    text = item_json.dump(table)
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise ValueError(
            f"expected items whose header has at most {MAX_HEADER} bytes, found {len(metadata)} "
            f"items with {len(text)}: write smaller shards"
        )
    return len(text).to_bytes(8, "little") + text


def read(stream: IO[bytes], codec: Codec | None) -> Iterator[Tokens]:
    size = bytes_left(stream)
    length = int.from_bytes(stream.read(8), "little")
    if size < 10 or length > min(size - 8, MAX_HEADER):
        raise ValueError("no safetensors header, or it is truncated")
    table = item_json.parse(bytes(read_exactly(stream, length)))
    metadata = table.pop("__metadata__", None)
    if not isinstance(metadata, dict):
        raise ValueError("expected a shard of tokens, found no metadata")
    reader = _Reader(stream, table, 8 + length, size - 8 - length)
    for name, text in metadata.items():
        key, _, kind = name.rpartition("/")
        if kind != "json" or not isinstance(text, str):
            raise ValueError(f"metadata {name[:100]!r}: expected the description of an item")
        yield reader.item(key, item_json.parse(text.encode()))
    if left := reader.left():
        raise ValueError(f"tensor {left[:100]!r}: expected an item that it belongs to")


class _Reader:
    """Takes tensors out of a shard, each one once, so that no small file fills the memory."""

    def __init__(self, stream: IO[bytes], table: dict[str, Any], start: int, size: int) -> None:
        self._stream = stream
        self._table = table
        self._start = start
        self._size = size

    def item(self, key: str, about: dict[str, Any]) -> Tokens:
        if about.get("key") != key:
            raise ValueError(f"item {key[:100]!r}: expected its key in its description")
        try:
            about["segment_frames"] = self._take(f"{key}/segment_frames", "I32", 1).tolist()
            scales = f"{key}/scales"
            has_scales = scales in self._table
            about["scales"] = self._take(scales, "F32", 1).tolist() if has_scales else None
            extra = {
                name: self._take(_extra_name(key, name), "U8", 1).tobytes()
                for name in item_json.extra_names(about)
            }
            codes = self._take(f"{key}/codes", "U16", 2)
            return item_json.restore(about, codes, extra)
        except ValueError as error:
            raise ValueError(f"item {key[:100]!r}: {error}") from None

    def left(self) -> str | None:
        """The name of a tensor that nobody took."""
        return next(iter(self._table), None)

    def _take(self, name: str, dtype: str, dimensions: int) -> npt.NDArray[Any]:
        entry = self._table.pop(name, None)
        kind = name.rpartition("/")[2]
        if not isinstance(entry, dict) or entry.get("dtype") != dtype:
            raise ValueError(f"{kind}: expected a tensor of {dtype}")
        shape, offsets = _integers(entry.get("shape")), _integers(entry.get("data_offsets"))
        if len(shape) != dimensions or len(offsets) != 2:
            raise ValueError(f"{kind}: expected {dimensions} dimensions and two offsets")
        begin, end = offsets
        if (
            not begin <= end <= self._size
            or math.prod(shape) * _DTYPES[dtype].itemsize != end - begin
        ):
            raise ValueError(f"{kind}: its shape or its place does not fit (is it truncated?)")
        self._stream.seek(self._start + begin)
        data = read_exactly(self._stream, end - begin)
        return np.frombuffer(data, _DTYPES[dtype]).reshape(shape)


def _integers(value: Any) -> list[int]:
    """A list of integers from 0 on; empty for anything else."""
    fits = isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)
    return value if fits else []
