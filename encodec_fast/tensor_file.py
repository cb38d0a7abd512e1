"""Safetensors files with a JSON object in their metadata, read without PyTorch and distrusted."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

# A real header has a few kilobytes; the cap keeps a hostile length field from allocating more.
MAX_HEADER = 1 << 22

# How safetensors names the types of stored tensors; bfloat16 values are carried as uint16.
FLOATS: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
INTEGERS: dict[str, np.dtype[Any]] = {"I32": np.dtype("<i4")}


class Kind(NamedTuple):
    """What a file holds: words for messages, the key in its metadata, and its format."""

    article: str
    name: str
    key: str
    format: int


def split(data: bytes, size: int, kind: Kind) -> tuple[dict[str, Any], dict[str, Any], int]:
    """The safetensors table, the object in the metadata and the offset of the tensor data.

    `data` may be the beginning of a file of `size` bytes. Raises ValueError for another kind.
    """
    length = int.from_bytes(data[:8], "little")
    if size < 10 or length > min(size - 8, MAX_HEADER):
        raise ValueError(f"not {kind.article} {kind.name} file (no safetensors header)")
    try:
        table = json.loads(data[8 : 8 + length])
        metadata = json.loads(table.pop("__metadata__")[kind.key])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(
            f"not {kind.article} {kind.name} file (its header names no {kind.name})"
        ) from None
    if (found := metadata.get("format")) != kind.format:
        raise ValueError(f"{kind.name} format: expected {kind.format}, found {found!r}")
    return table, metadata, 8 + length


class Tensors:
    """Tensors by name, checked against the file's size when they are taken."""

    def __init__(self, table: dict[str, Any], data: memoryview) -> None:
        self._table = table
        self._data = data
        self._taken: set[str] = set()
        self._left = len(data)

    def take(self, name: object) -> npt.NDArray[np.float32]:
        """As float32, whatever it is stored as."""
        array = self.take_weight(name)
        if array.dtype == np.uint16:
            array = (array.astype(np.uint32) << 16).view(np.float32)
        return array

    def take_weight(self, name: object) -> npt.NDArray[Any]:
        """As float32, or as the uint16 that hold bfloat16: what the native matrices take."""
        stored = self._take(name, FLOATS)
        # Aligned and contiguous: the file may align nothing.
        bfloat16 = stored.dtype == np.uint16
        array = np.require(stored, np.uint16 if bfloat16 else np.float32, ["C", "A"])
        finite = (array & 0x7F80) != 0x7F80 if bfloat16 else np.isfinite(array)
        if not finite.all():
            raise ValueError(f"tensor {name}: has values that are not finite")
        return array

    def take_integers(self, name: object) -> npt.NDArray[np.int32]:
        """As int32."""
        return np.require(self._take(name, INTEGERS), np.int32, ["C", "A"])

    def _take(self, name: object, dtypes: dict[str, np.dtype[Any]]) -> npt.NDArray[Any]:
        if not isinstance(name, str) or name not in self._table:
            raise ValueError(f"no tensor named {name!r}")
        if name in self._taken:  # or a small file could fill the memory with copies
            raise ValueError(f"tensor {name}: is used twice")
        self._taken.add(name)
        entry = self._table[name]
        if entry["dtype"] not in dtypes:
            known = ", ".join(dtypes)
            raise ValueError(f"tensor {name}: expected {known}, found {entry['dtype']!r}")
        dtype = dtypes[entry["dtype"]]
        sizes = entry["shape"]
        if not isinstance(sizes, list) or len(sizes) > 3:
            raise ValueError(f"tensor {name}: expected a shape of at most 3 dimensions")
        shape = [integer(size, f"tensor {name}: size", 1, 1 << 40) for size in sizes]
        begin, end = entry["data_offsets"]
        if not 0 <= begin <= end <= len(self._data):
            raise ValueError(f"tensor {name}: lies outside the file (is it truncated?)")
        if math.prod(shape) * dtype.itemsize != end - begin:
            raise ValueError(f"tensor {name}: its shape does not fit its {end - begin} bytes")
        self._left -= end - begin
        if self._left < 0:  # or a small file could fill the memory with copies
            raise ValueError(f"tensor {name}: overlaps another one")
        return np.frombuffer(self._data[begin:end], dtype=dtype).reshape(shape)


def integer(value: object, what: str, low: int, high: int) -> int:
    """`value` if it is an integer in low..high; raises ValueError naming `what` it is."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{what}: expected an integer in {low}..{high}, found {value!r}")
    return value


def string(metadata: dict[str, Any], key: str) -> str:
    """The text at `key`; raises ValueError for anything else and for an empty one."""
    value = metadata[key]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key}: expected a name, found {value!r}")
    return value
