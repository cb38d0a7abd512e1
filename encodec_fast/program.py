"""Program files: a model as a flat list of operations and weights, read without PyTorch.

The format (safetensors with the list in its metadata) is specified in docs/program.md.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from encodec_fast import _native
from encodec_fast.store import check_name

FORMAT = 1
METADATA_KEY = "encodec_fast.program"
# A real header has a few kilobytes; the cap keeps a hostile length field from allocating more.
MAX_HEADER = 1 << 22
# Between the operations, for the least that they can run: a frame, or a segment. A real model has
# a few ten million; the cap keeps a hostile program from asking for memory without bound.
MAX_PIECE_BYTES = 1 << 30

# How safetensors names the types of stored tensors; bfloat16 values are carried as uint16.
_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}


@dataclass(frozen=True)
class Header:
    """What a program says about its model.

    `bandwidths` maps kbps to the number of codebooks; lengths are in samples per channel;
    `segment_length` and `segment_stride` are None for models that code a recording as a whole.
    """

    name: str
    sample_rate: int
    channels: int
    hop: int
    bandwidths: dict[float, int]
    codebook_size: int
    normalize: bool
    segment_length: int | None
    segment_stride: int | None

    @property
    def n_codebooks(self) -> int:
        """Codebooks of the highest bandwidth."""
        return max(self.bandwidths.values())

    @property
    def codebook_bits(self) -> int:
        """Bits per code."""
        return (self.codebook_size - 1).bit_length()

    def n_q(self, bandwidth: float | None) -> int:
        """Codebooks used at `bandwidth` kbps, None meaning all. Raises ValueError for others."""
        if bandwidth is None:
            return self.n_codebooks
        found = self.bandwidths.get(bandwidth) if isinstance(bandwidth, (int, float)) else None
        if found is None:
            supported = ", ".join(f"{b:g}" for b in self.bandwidths)
            raise ValueError(
                f"bandwidth: {self.name} supports {supported} kbps, found {bandwidth!r}"
            )
        return found


@dataclass(frozen=True)
class Program:
    """A model ready to run: its header and the native graphs and codebooks (immutable, shared).

    `hash` is the first eight hexadecimal digits of the file's SHA-256: what files call the model.
    """

    header: Header
    encoder: _native.Graph
    decoder: _native.Graph
    codebooks: _native.Codebooks
    hash: str

    @staticmethod
    def load(path: str | Path) -> Program:
        """Read and check a program file.

        Raises OSError if it cannot be read and ValueError (naming the file and what is wrong) if
        it is not a program, is damaged, or is of a format this version does not know.
        """
        with Path(path).open("rb") as file:
            data = file.read()
        try:
            description, metadata, start = _split(data, len(data))
            tensors = _Tensors(description, memoryview(data)[start:])
            program = _build(metadata, tensors, hashlib.sha256(data).hexdigest()[:8])
        except (KeyError, TypeError, OverflowError, AttributeError) as error:
            raise ValueError(f"{path}: not a valid program: {error!r}") from None
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        return program


def read_header(path: str | Path) -> Header:
    """The header of a program file, without its weights. Raises as Program.load."""
    with Path(path).open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        data = file.read(min(size, MAX_HEADER + 8))
    try:
        description, metadata, _ = _split(data, size)
        return _header(metadata, description[_string(metadata, "codebooks")]["shape"])
    except (KeyError, TypeError, OverflowError, AttributeError) as error:
        raise ValueError(f"{path}: not a valid program: {error!r}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _split(data: bytes, size: int) -> tuple[dict[str, Any], dict[str, Any], int]:
    """The safetensors table, the program's metadata and the offset of the tensor data."""
    length = int.from_bytes(data[:8], "little")
    if size < 10 or length > min(size - 8, MAX_HEADER):
        raise ValueError("not a program file (no safetensors header)")
    try:
        table = json.loads(data[8 : 8 + length])
        metadata = json.loads(table.pop("__metadata__")[METADATA_KEY])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError("not a program file (its header names no program)") from None
    if metadata.get("format") != FORMAT:
        raise ValueError(f"program format: expected {FORMAT}, found {metadata.get('format')!r}")
    return table, metadata, 8 + length


class _Tensors:
    """Tensors by name, checked against the file's size when they are taken."""

    def __init__(self, table: dict[str, Any], data: memoryview) -> None:
        self._table = table
        self._data = data
        self._taken: set[str] = set()

    def take(self, name: object) -> npt.NDArray[np.float32]:
        """As float32, whatever it is stored as."""
        array = self.take_weight(name)
        if array.dtype == np.uint16:
            array = (array.astype(np.uint32) << 16).view(np.float32)
        return array

    def take_weight(self, name: object) -> npt.NDArray[Any]:
        """As float32, or as the uint16 that hold bfloat16: what the native matrices take."""
        if not isinstance(name, str) or name not in self._table:
            raise ValueError(f"no tensor named {name!r}")
        if name in self._taken:  # or a small file could fill the memory with copies
            raise ValueError(f"tensor {name}: is used twice")
        self._taken.add(name)
        entry = self._table[name]
        if entry["dtype"] not in _DTYPES:
            raise ValueError(f"tensor {name}: expected F32, F16 or BF16, found {entry['dtype']!r}")
        dtype = _DTYPES[entry["dtype"]]
        sizes = entry["shape"]
        if not isinstance(sizes, list) or len(sizes) > 3:
            raise ValueError(f"tensor {name}: expected a shape of at most 3 dimensions")
        shape = [_integer(size, f"tensor {name}: size", 1, 1 << 40) for size in sizes]
        begin, end = entry["data_offsets"]
        if not 0 <= begin <= end <= len(self._data):
            raise ValueError(f"tensor {name}: lies outside the file (is it truncated?)")
        if math.prod(shape) * dtype.itemsize != end - begin:
            raise ValueError(f"tensor {name}: its shape does not fit its {end - begin} bytes")
        stored = np.frombuffer(self._data[begin:end], dtype=dtype).reshape(shape)
        bfloat16 = entry["dtype"] == "BF16"
        # Aligned and contiguous: the file may align nothing.
        array = np.require(stored, np.uint16 if bfloat16 else np.float32, ["C", "A"])
        finite = (array & 0x7F80) != 0x7F80 if bfloat16 else np.isfinite(array)
        if not finite.all():
            raise ValueError(f"tensor {name}: has values that are not finite")
        return array


def _integer(value: object, what: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{what}: expected an integer in {low}..{high}, found {value!r}")
    return value


def _string(metadata: dict[str, Any], key: str) -> str:
    value = metadata[key]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key}: expected a name, found {value!r}")
    return value


def _flag(op: dict[str, Any], key: str) -> bool:
    value = op[key]
    if not isinstance(value, bool):
        raise ValueError(f"{key}: expected true or false, found {value!r}")
    return value


def _header(metadata: dict[str, Any], codebooks_shape: list[int]) -> Header:
    count, size, _ = codebooks_shape
    bandwidths: dict[float, int] = {}
    for bandwidth, n_q in metadata["bandwidths"]:
        if not isinstance(bandwidth, (int, float)) or not 0 < bandwidth < 1e6:
            raise ValueError(f"bandwidths: expected kbps, found {bandwidth!r}")
        if bandwidths and bandwidth <= next(reversed(bandwidths)):
            raise ValueError("bandwidths: expected rising kbps")
        bandwidths[float(bandwidth)] = _integer(n_q, "bandwidths: codebooks", 1, count)
    if not bandwidths:
        raise ValueError("bandwidths: expected at least one")
    length, stride = metadata["segment_length"], metadata["segment_stride"]
    if (length is None) != (stride is None):
        raise ValueError("segment_length and segment_stride: expected both or neither")
    if length is not None:
        _integer(length, "segment_length", 1, 1 << 21)
        _integer(stride, "segment_stride", -(-length // 64), length)
    normalize = _flag(metadata, "normalize")
    if normalize and length is None:
        raise ValueError("normalize: expected a model that codes segments")
    return Header(
        name=check_name(_string(metadata, "name")),
        sample_rate=_integer(metadata["sample_rate"], "sample_rate", 1, 1 << 22),
        channels=_integer(metadata["channels"], "channels", 1, 64),
        hop=_integer(metadata["hop"], "hop", 1, 1 << 16),
        bandwidths=bandwidths,
        codebook_size=_integer(size, "codebooks: entries", 2, 1 << 16),
        normalize=normalize,
        segment_length=length,
        segment_stride=stride,
    )


def _build(metadata: dict[str, Any], tensors: _Tensors, digest: str) -> Program:
    books = tensors.take(metadata["codebooks"])
    if books.ndim != 3:
        raise ValueError(f"codebooks: expected 3 dimensions, found {books.ndim}")
    header = _header(metadata, list(books.shape))
    encoder = _graph("encoder", header.channels, metadata["encoder"], tensors)
    decoder = _graph("decoder", books.shape[2], metadata["decoder"], tensors)
    for name, found, expected in (
        ("encoder: samples per frame", (encoder.down, encoder.up), (header.hop, 1)),
        ("encoder: latent dimension", encoder.out_channels, books.shape[2]),
        ("decoder: samples per frame", (decoder.up, decoder.down), (header.hop, 1)),
        ("decoder: channels", decoder.out_channels, header.channels),
        ("encoder and decoder: causal", encoder.causal, decoder.causal),
    ):
        if found != expected:
            raise ValueError(f"{name}: expected {expected}, found {found}")
    if encoder.causal == (header.segment_length is not None):
        raise ValueError("segment_length: expected exactly when the operations are not causal")
    frames = -(-(header.segment_length or 0) // header.hop)
    for name, graph, length in (
        ("encoder", encoder, header.segment_length),
        ("decoder", decoder, frames),
    ):
        if (found_bytes := graph.piece_bytes(length or graph.down)) > MAX_PIECE_BYTES:
            raise ValueError(
                f"{name}: expected operations that need at most {MAX_PIECE_BYTES} bytes between "
                f"them, found {found_bytes:.3g}"
            )
    return Program(header, encoder, decoder, _native.Codebooks(books), digest)


def _graph(name: str, channels: int, ops: list[dict[str, Any]], tensors: _Tensors) -> _native.Graph:
    if not isinstance(ops, list) or not 1 <= len(ops) <= 1000:
        raise ValueError(f"{name}: expected a list of 1..1000 operations")
    graph = _native.Graph(channels)
    for index, op in enumerate(ops):
        try:
            _append(graph, op, tensors)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{name} operation {index}: {error}") from None
    try:
        graph.seal()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return graph


def _append(graph: _native.Graph, op: dict[str, Any], tensors: _Tensors) -> None:
    kind = op["op"]
    source = _integer(op["input"], "input", 0, 1 << 20)
    elu = _flag(op, "elu")
    weight, bias = tensors.take_weight(op["weight"]), tensors.take(op["bias"])
    add = op.get("add")
    add = -1 if add is None else _integer(add, "add", 0, 1 << 20)
    if kind == "lstm":
        recurrent = tensors.take_weight(op["recurrent"])
        if weight.dtype != recurrent.dtype:
            raise ValueError("weight and recurrent: expected both or neither as BF16")
        graph.lstm(source, add, elu, weight, recurrent, bias)
        return
    scale, offset, eps = _norm(op["norm"], tensors)
    stride = _integer(op["stride"], "stride", 1, 1 << 12)
    if kind == "conv":
        kernel = _integer(op["kernel"], "kernel", 1, 1 << 12)
        left, right = (_integer(p, "pad", 0, 1 << 12) for p in op["pad"])
        if op["pad_mode"] not in ("reflect", "constant"):
            raise ValueError(f"pad_mode: expected reflect or constant, found {op['pad_mode']!r}")
        reflect = op["pad_mode"] == "reflect"
        graph.conv(
            source, add, elu, kernel, stride, left, right, reflect, weight, bias, scale, offset, eps
        )
    elif kind == "conv_transpose":
        trim = _integer(op["trim_left"], "trim_left", 0, 1 << 12)
        graph.conv_transpose(source, elu, stride, trim, weight, bias, scale, offset, eps)
    else:
        raise ValueError(f"op: expected conv, conv_transpose or lstm, found {kind!r}")


def _norm(
    norm: dict[str, Any] | None, tensors: _Tensors
) -> tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.float32] | None, float]:
    if norm is None:
        return None, None, 0.0
    eps = norm["eps"]
    if not isinstance(eps, float) or not 0 < eps < 1:
        raise ValueError(f"norm eps: expected a number in 0..1, found {eps!r}")
    return tensors.take(norm["scale"]), tensors.take(norm["offset"]), eps
