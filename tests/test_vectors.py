"""The files of tests/vectors: still written as they are, and read as docs/format.md says.

The second half decodes them by a reader of its own, in plain Python, written from the page alone.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from vectors import make

import encodec_fast as ef
from encodec_fast.entropy_model import EntropyModel

FOLDER = Path(make.__file__).parent
EXPECTED: dict[str, Any] = json.loads((FOLDER / "codes.json").read_text())
NAMES = [f"{kind}.{mode}" for kind in make.KINDS for mode in make.MODES]


def test_the_files_are_written_as_they_were() -> None:
    for name, data in make.files().items():
        assert (FOLDER / name).read_bytes() == data, name


@pytest.mark.parametrize("name", NAMES)
def test_they_decode_alike(name: str) -> None:
    kind = name.partition(".")[0]
    codec = ef.Codec.load(FOLDER / f"tiny_{kind}.safetensors")
    data = (FOLDER / f"{name}.ecdc").read_bytes()
    assert hashlib.sha256(data).hexdigest() == EXPECTED["sha256"][f"{name}.ecdc"]
    expected = codec.decompress((FOLDER / f"{kind}.none.ecdc").read_bytes(), strict=True)
    assert np.array_equal(codec.decompress(data, strict=True), expected)


def test_the_damaged_one() -> None:
    codec = ef.Codec.load(FOLDER / "tiny_reflect.safetensors")
    with pytest.warns(ef.DamageWarning) as caught:
        codec.decompress((FOLDER / "reflect.damaged.ecdc").read_bytes())
    assert caught[0].message.lost == [(80 * 6 / 8000, 160 * 6 / 8000)]  # type: ignore[union-attr]


# --- a reader of its own ----------------------------------------------------------------------


def crc(data: bytes, value: int = 0) -> int:
    value ^= 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


class Chunk(NamedTuple):
    number: int
    frames: int
    payload: bytes


def parse(data: bytes) -> tuple[dict[str, Any], list[Chunk], int]:
    """Header, chunks and length of an intact file."""
    magic, version, size = struct.unpack(">4sBI", data[:9])
    assert (magic, version) == (b"ECDC", 1)
    header = json.loads(data[9 : 9 + size])
    at = 9 + size + 4
    (seed,) = struct.unpack("<I", data[at - 4 : at])
    assert seed == crc(data[: at - 4])
    sizes: list[int] = []
    chunks: list[Chunk] = []

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def checked(begin: int, more: bytes = b"") -> None:
        nonlocal at
        assert struct.unpack("<I", data[at : at + 4])[0] == crc(data[begin:at] + more, seed)
        at += 4

    while data[at] != 0xCE:
        begin = at
        at += 1
        number, length = varint(), varint()
        frames = varint() if data[begin] == 0xC1 else header["c"]
        payload = data[at + 4 : at + 4 + length]
        checked(begin, payload)
        at += length
        if number % header.get("k", 1) == 0:
            sizes.append(0)
        sizes[-1] += at - begin
        chunks.append(Chunk(number, frames, payload))
    begin = at
    at += 1
    count, samples, index_size = varint(), varint(), varint()
    checked(begin)
    index = at
    assert count == len(chunks)
    assert [varint() for _ in sizes] == sizes and at == index + index_size
    checked(index)
    assert struct.unpack("<I", data[at:])[0] == len(data) - begin
    return header, chunks, samples


def unpack(payload: bytes, bits: int) -> Iterator[int]:
    number = int.from_bytes(payload, "little")
    while True:
        yield number & (1 << bits) - 1
        number >>= bits


class Decoder:
    """The range decoder of the page."""

    def __init__(self, payload: bytes) -> None:
        self.data = payload + bytes(8)
        self.code = int.from_bytes(self.data[:8], "big")
        self.range = (1 << 64) - 1
        self.at = 8

    def symbol(self, widths: list[int]) -> int:
        unit = self.range >> 24
        target, start = self.code // unit, 0
        for entry, width in enumerate(widths):
            if target < start + width:
                self.code -= unit * start
                self.range = unit * width
                if self.range < 1 << 32:
                    self.range <<= 32
                    fresh = self.data[self.at : self.at + 4].ljust(4, b"\0")
                    self.code = self.code << 32 | int.from_bytes(fresh, "big")
                    self.at += 4
                return entry
            start += width
        raise AssertionError("beyond the last interval")


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_written_from_the_page(name: str) -> None:
    kind, _, mode = name.partition(".")
    header, chunks, samples = parse((FOLDER / f"{name}.ecdc").read_bytes())
    assert samples == 1000 and header.get("e", "none") == mode
    path = FOLDER / f"tiny_{kind}.safetensors"
    assert header["h"] == hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    model = EntropyModel.load(FOLDER / f"tiny_{kind}.entropy.safetensors")
    n_q = header["nc"]
    codes: list[list[int]] = [[] for _ in range(n_q)]
    scales = []
    for chunk in chunks:
        payload = chunk.payload
        if kind == "segments":
            scales.append(struct.unpack(">f", payload[:4])[0])
            payload = payload[4:]
        if chunk.number % header.get("k", 1) == 0:
            context: list[list[int]] = []
        packed, coded = unpack(payload, 5), Decoder(payload)
        for _ in range(chunk.frames):
            frame = []
            for book in range(n_q):
                if mode == "none":
                    frame.append(next(packed))
                    continue
                if mode == "static":
                    widths = model.tables[book].tolist()  # type: ignore[index]
                else:
                    widths = predicted(model, context, n_q)[book]
                frame.append(coded.symbol(widths))
            context.append(frame)
            for book, code in enumerate(frame):
                codes[book].append(code)
    assert codes == EXPECTED[kind]["codes"]
    assert (scales or None) == EXPECTED[kind]["scales"]


def predicted(model: EntropyModel, context: list[list[int]], n_q: int) -> list[list[int]]:
    """Widths of the next frame's codes, by the rule of the page, from the model's floats."""
    from encodec_fast._native import LmCoder

    assert model.lm is not None
    coder = LmCoder(model.lm, n_q, 1)
    known = np.array([*context, [0] * n_q], np.uint16).T.copy()  # the last frame is not looked at
    (floats,) = coder.probabilities([0], [known])
    factor = np.float32((1 << 24) - 2 * floats.shape[-1])
    return [[1 + int(p * factor) for p in row] for row in floats[-1]]
