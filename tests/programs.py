"""Small random programs, written by hand: the native core and the codec without torch."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

DIMENSION, WIDTH, HOP, BOOKS, ENTRIES = 8, 6, 6, 4, 32

DTYPES = {"float32": "F32", "float16": "F16", "uint16": "BF16", "int32": "I32"}

Tensors = dict[str, npt.NDArray[Any]]


def to_bfloat16(array: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The bits of the nearest bfloat16, ties to the even one."""
    bits = array.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat16(array: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """The same values as float32."""
    return (array.astype(np.uint32) << 16).view(np.float32)


def write_program(path: Path, header: dict[str, Any], tensors: Tensors) -> Path:
    """A program file."""
    return write_tensors(path, "encodec_fast.program", header, tensors)


def write_tensors(path: Path, key: str, header: dict[str, Any], tensors: Tensors) -> Path:
    """The safetensors layout, byte by byte, with the header under `key`; uint16 holds bfloat16."""
    table: dict[str, Any] = {"__metadata__": {key: json.dumps(header)}}
    data = b""
    for name, array in tensors.items():
        dtype = DTYPES[str(array.dtype)]
        offsets = [len(data), len(data) + array.nbytes]
        table[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}
        data += array.tobytes()
    text = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


class _Model:
    """Collects the operations and tensors of one tiny model."""

    def __init__(self, kind: str, seed: int, width: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.width = width
        self.tensors: Tensors = {}
        self.causal = kind in ("reflect", "constant")
        self.segmented = kind == "segments"
        self.pad_mode = "constant" if kind in ("constant", "ahead_constant") else "reflect"

    def tensor(self, name: str, *shape: int) -> str:
        fan_in = shape[0] if len(shape) > 1 else 8
        array = self.rng.standard_normal(shape) / fan_in**0.5
        self.tensors[name] = array.astype(np.float32)
        return name

    def norm(self, name: str, size: int) -> dict[str, Any] | None:
        if not self.segmented:
            return None
        scale, offset = self.tensor(f"{name}.scale", size), self.tensor(f"{name}.offset", size)
        self.tensors[scale] += 1
        return {"scale": scale, "offset": offset, "eps": 1e-5}

    def conv(
        self, name: str, source: int, cin: int, cout: int, kernel: int, stride: int, **more: Any
    ) -> dict[str, Any]:
        padding = kernel - stride
        right = 0 if self.causal else padding // 2
        return {
            "op": "conv",
            "input": source,
            "add": None,
            "elu": True,
            "kernel": kernel,
            "stride": stride,
            "pad": [padding - right, right],
            "pad_mode": self.pad_mode,
            "weight": self.tensor(f"{name}.weight", kernel * cin, cout),
            "bias": self.tensor(f"{name}.bias", cout),
            "norm": self.norm(name, cout),
            **more,
        }

    def lstm(self, name: str, source: int, add: int | None) -> dict[str, Any]:
        return {
            "op": "lstm",
            "input": source,
            "add": add,
            "elu": False,
            "weight": self.tensor(f"{name}.weight", self.width, 4 * self.width),
            "recurrent": self.tensor(f"{name}.recurrent", self.width, 4 * self.width),
            "bias": self.tensor(f"{name}.bias", 4 * self.width),
        }

    def up(self, name: str, source: int, stride: int) -> dict[str, Any]:
        return {
            "op": "conv_transpose",
            "input": source,
            "elu": True,
            "stride": stride,
            "trim_left": 0 if self.causal else stride - stride // 2,
            "weight": self.tensor(f"{name}.weight", 2 * self.width, stride * self.width),
            "bias": self.tensor(f"{name}.bias", self.width),
            "norm": self.norm(name, self.width),
        }


def describe(
    kind: str, channels: int = 1, seed: int = 0, width: int = WIDTH
) -> tuple[dict[str, Any], Tensors]:
    """Header and tensors of a tiny model: "reflect" and "constant" are causal, "ahead" and
    "ahead_constant" pad on both sides, "segments" works on segments of 100 samples every 90 with
    group norm and normalisation. Hop 6, 4 codebooks."""
    m = _Model(kind, seed, width)
    header = {
        "format": 1,
        "name": f"tiny_{kind}",
        "sample_rate": 8000,
        "channels": channels,
        "hop": HOP,
        "bandwidths": [[3.0, 1], [6.0, 2], [12.0, 4]],
        "codebooks": "codebooks",
        "normalize": m.segmented,
        "segment_length": 100 if m.segmented else None,
        "segment_stride": 90 if m.segmented else None,
        "encoder": [
            m.conv("e1", 0, channels, width, 7, 1, elu=False),
            m.conv("e2", 1, width, width, 1, 1, elu=False),
            m.conv("e3", 1, width, 3, 3, 1),
            m.conv("e4", 3, 3, width, 1, 1, add=2),
            m.conv("e5", 4, width, width, 4, 2),
            m.conv("e6", 5, width, width, 6, 3),
            m.lstm("e7", 6, None),
            m.lstm("e8", 7, 6),
            m.conv("e9", 8, width, DIMENSION, 5, 1),
        ],
        "decoder": [
            m.conv("d1", 0, DIMENSION, width, 5, 1, elu=False),
            m.lstm("d2", 1, 1),
            m.up("d3", 2, 3),
            m.up("d4", 3, 2),
            m.conv("d5", 4, width, channels, 7, 1),
        ],
    }
    books = m.rng.standard_normal((BOOKS, ENTRIES, DIMENSION))
    books *= 0.5 ** np.arange(BOOKS)[:, None, None]
    m.tensors["codebooks"] = books.astype(np.float32)
    return header, m.tensors


def tiny_program(folder: Path, kind: str, channels: int = 1) -> Path:
    """A program file of a tiny model in `folder`."""
    return write_program(folder / f"tiny_{kind}.safetensors", *describe(kind, channels))
