"""The version 0 container: exact bytes, round trips, and hostile input."""

from __future__ import annotations

import io
import itertools
import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from containers import version_0
from hypothesis import given, settings
from hypothesis import strategies as st

from encodec_fast import ecdc
from encodec_fast.segments import Piece

ERRORS = (ValueError, EOFError)
quick = settings(derandomize=True, max_examples=60, deadline=None)


@dataclass(frozen=True)
class Layout:
    """A model as the container sees it."""

    name: str = "encodec_24khz"
    hop: int = 320
    n_codebooks: int = 32
    codebook_bits: int = 10
    normalize: bool = False
    segment_length: int | None = None
    segment_stride: int | None = None


CAUSAL = Layout()
SEGMENTED = Layout("encodec_48khz", 320, 16, 10, True, 48000, 47520)


def random_pieces(layout: Layout, length: int, n_q: int, seed: int = 0) -> list[Piece]:
    """What an encoder of this layout gives for `length` samples, one piece per segment."""
    rng = np.random.default_rng(seed)
    stride = layout.segment_stride or length
    pieces = []
    for offset in range(0, length, stride):
        frames = -(-min(length - offset, layout.segment_length or length) // layout.hop)
        codes = rng.integers(0, 1 << layout.codebook_bits, (n_q, frames)).astype(np.uint16)
        scale = float(rng.random(dtype=np.float32)) if layout.normalize else None
        pieces.append(Piece(codes, scale, True))
    return pieces


def written(layout: Layout, length: int, n_q: int, pieces: list[Piece]) -> bytes:
    return version_0(layout, length, n_q, pieces)


def read(layout: Layout, data: bytes) -> tuple[ecdc.Header, list[Piece]]:
    reader = reader_of(layout, io.BytesIO(data))
    return reader.header, list(reader.pieces()[1])


def reader_of(layout: Layout, stream: io.BytesIO) -> ecdc.Reader:
    return ecdc.Reader(stream, ecdc.read_header(stream, "file"), layout, "file")


def joined(pieces: list[Piece]) -> list[Piece]:
    """The same with one piece per segment."""
    segments: list[Piece] = []
    for piece in pieces:
        if piece.start:
            segments.append(piece)
        else:
            codes = np.concatenate([segments[-1].codes, piece.codes], axis=1)
            segments[-1] = segments[-1]._replace(codes=codes)
    return segments


def assert_same(left: list[Piece], right: list[Piece]) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one.codes.dtype == np.uint16
        np.testing.assert_array_equal(one.codes, other.codes)
        assert one.scale == other.scale


def test_the_header_is_the_references_byte_for_byte() -> None:
    text = b'{"m": "encodec_24khz", "al": 240000, "nc": 8, "lm": false}'
    expected = b"ECDC\x00\x00\x00\x00\x3a" + text
    assert ecdc.Header("encodec_24khz", 240000, 8).to_bytes() == expected
    assert ecdc.read_header(io.BytesIO(expected)) == ecdc.Header("encodec_24khz", 240000, 8)


def test_the_size_of_a_header_that_another_program_wrote() -> None:
    text = b'{"lm":false,"nc":8,"al":240000,"m":"encodec_24khz"}'
    data = b"ECDC" + struct.pack(">BI", 0, len(text)) + text
    header = ecdc.read_header(io.BytesIO(data + b"payload"))
    assert header == ecdc.Header("encodec_24khz", 240000, 8)
    assert header.stored_size == len(data)


@pytest.mark.parametrize(
    "name", ["", "a" * 101, "\x1b[31m", "a\nb", "\ud800", "\u202e" * 5000, "\x00" * 60000]
)
def test_names_that_are_not_fit_to_print(name: str) -> None:
    shown = ecdc.shown_model(name)
    assert 0 < len(shown) <= 100
    assert shown.isascii()
    assert shown.isprintable()
    assert ecdc.shown_model("encodec_24khz") == "encodec_24khz"


def test_codes_are_packed_frame_by_frame_lowest_bit_first() -> None:
    codes = np.array([[1, 512], [1023, 5], [7, 0]], np.uint16)  # 3 codebooks, 2 frames
    data = written(CAUSAL, 321, 3, [Piece(codes, None, True)])
    bits = sum(v << 10 * i for i, v in enumerate([1, 1023, 7, 512, 5, 0]))
    header = ecdc.Header("encodec_24khz", 321, 3).to_bytes()
    assert data == header + bits.to_bytes(8, "little")


def test_a_segment_begins_on_a_byte_with_its_scale() -> None:
    pieces = [
        Piece(np.full((3, 150), 3, np.uint16), 0.5, True),
        Piece(np.full((3, 2), 1, np.uint16), 2.0, True),
    ]
    data = written(SEGMENTED, 48000, 3, pieces)
    first = sum(3 << 10 * i for i in range(450)).to_bytes(563, "little")
    second = sum(1 << 10 * i for i in range(6)).to_bytes(8, "little")
    payload = b"\x3f\x00\x00\x00" + first + b"\x40\x00\x00\x00" + second
    assert data == ecdc.Header("encodec_48khz", 48000, 3).to_bytes() + payload


@quick
@given(data=st.data())
def test_round_trip(data: Any) -> None:
    bits = data.draw(st.integers(1, 16))
    length = data.draw(st.integers(1, 2000))
    segment = data.draw(st.none() | st.integers(50, 700))
    stride = segment and data.draw(st.integers(max(segment // 2, 40), segment))
    layout = Layout(
        "m", data.draw(st.integers(1, 64)), 9, bits, segment is not None, segment, stride
    )
    n_q = data.draw(st.integers(1, 9))
    pieces = random_pieces(layout, length, n_q)
    file = written(layout, length, n_q, pieces)
    header, found = read(layout, file + data.draw(st.binary(max_size=3)))
    assert header == ecdc.Header("m", length, n_q)
    assert_same(joined(found), pieces)
    assert all(piece.codes.shape[1] <= 600 or segment for piece in found)
    assert len(file) == len(header.to_bytes()) + ecdc.payload_size(layout, header)


def test_how_codes_are_cut_into_pieces_does_not_matter() -> None:
    (whole,) = random_pieces(CAUSAL, 2000 * 320, 3)
    cuts = [0, 1, 8, 9, 700, 1999, 2000]
    parts = [Piece(whole.codes[:, a:b], None, a == 0) for a, b in itertools.pairwise(cuts)]
    assert written(CAUSAL, 2000 * 320, 3, parts) == written(CAUSAL, 2000 * 320, 3, [whole])


def test_short_reads_are_completed() -> None:
    class Pipe(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 0, 3))

        def seekable(self) -> bool:
            return False

    pieces = random_pieces(SEGMENTED, 100001, 4)
    reader = reader_of(SEGMENTED, Pipe(written(SEGMENTED, 100001, 4, pieces)))
    assert_same(list(reader.pieces()[1]), pieces)


@pytest.mark.parametrize(("layout", "length"), [(CAUSAL, 1000), (SEGMENTED, 48000)])
@pytest.mark.parametrize("seekable", [True, False])
def test_truncation_at_every_byte(layout: Layout, length: int, seekable: bool) -> None:
    class Stream(io.BytesIO):
        def seekable(self) -> bool:
            return seekable

    data = written(layout, length, 2, random_pieces(layout, length, 2))
    for size in range(len(data)):
        with pytest.raises(EOFError):
            list(reader_of(layout, Stream(data[:size])).pieces()[1])


def damaged(**changes: Any) -> bytes:
    metadata = {"m": "encodec_24khz", "al": 1000, "nc": 2, "lm": False, **changes}
    kept = {key: value for key, value in metadata.items() if value is not ...}
    text = json.dumps(kept).encode()
    return struct.pack(">4sBI", b"ECDC", 0, len(text)) + text + bytes(100)


@pytest.mark.parametrize(
    "changes",
    [
        {"m": 5}, {"m": ...}, {"m": None}, {"al": 0}, {"al": -1}, {"al": True}, {"al": 1e3},
        {"al": "1"}, {"al": ...}, {"al": 10**30}, {"nc": 0}, {"nc": -2}, {"nc": True}, {"nc": 33},
        {"nc": 10**9}, {"nc": [1]}, {"lm": 0}, {"lm": None}, {"lm": ...}, {"al": float("nan")},
    ],
)  # fmt: skip
def test_a_wrong_header_is_a_value_error(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError) as error:
        read(CAUSAL, damaged(**changes))
    assert "\n" not in str(error.value)


def test_absurd_lengths_fail_at_once() -> None:
    for layout in (CAUSAL, SEGMENTED):
        with pytest.raises(EOFError, match="truncated"):
            reader_of(layout, io.BytesIO(damaged(m=layout.name, al=(1 << 63) - 1)))
    with pytest.raises(ValueError, match="bytes of metadata"):
        read(CAUSAL, b"ECDC\x00\xff\xff\xff\xff{}")


@pytest.mark.parametrize(
    "text", [b"[" * 60000, b"[]", b"1", b"\xff", b"{", b"", b'{"al": ' + b"9" * 9000 + b"}"]
)
def test_metadata_that_is_no_object(text: bytes) -> None:
    with pytest.raises(ValueError, match="damaged header"):
        read(CAUSAL, struct.pack(">4sBI", b"ECDC", 0, len(text)) + text)


@pytest.mark.parametrize("data", [b"RIFF", b"E", b"ECDX\0\0\0\0\x02{}", b"x", b"\0" * 200])
def test_foreign_files(data: bytes) -> None:
    error = EOFError if b"ECDC".startswith(data) else ValueError
    with pytest.raises(error):
        read(CAUSAL, data)


def test_what_this_version_cannot_read() -> None:
    with pytest.raises(ecdc.UnsupportedFileError, match="language model"):
        read(CAUSAL, damaged(lm=True))
    with pytest.raises(ecdc.UnsupportedFileError, match="version 2"):
        read(CAUSAL, b"ECDC\x02" + damaged()[5:])
    with pytest.raises(ValueError, match="written by model other, not encodec_24khz"):
        read(CAUSAL, damaged(m="other"))


@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, -1.0])
def test_a_scale_that_no_encoder_writes(scale: float) -> None:
    good = written(SEGMENTED, 320, 2, [Piece(np.zeros((2, 1), np.uint16), 1.0, True)])
    with pytest.raises(ValueError, match="scale"):
        read(SEGMENTED, good[:-7] + struct.pack(">f", scale) + good[-3:])
    with pytest.raises(ValueError, match="scale"):
        written(SEGMENTED, 320, 2, [Piece(np.zeros((2, 1), np.uint16), scale, True)])


@pytest.mark.parametrize(
    "piece",
    [
        Piece(np.zeros((2, 1), np.uint16), 1e39, True),
        Piece(np.zeros((2, 1), np.uint16), None, True),
        Piece(np.zeros((3, 1), np.uint16), 1.0, True),
        Piece(np.zeros((2, 2), np.uint16), 1.0, True),
        Piece(np.full((2, 1), 1024, np.uint16), 1.0, True),
        Piece(np.zeros(2, np.uint16), 1.0, True),
    ],
)
def test_pieces_that_fit_no_file(piece: Piece) -> None:
    with pytest.raises(ValueError):
        written(SEGMENTED, 320, 2, [piece])


@quick
@given(position=st.integers(0, 150), value=st.integers(0, 255), layout=st.sampled_from([0, 1]))
def test_a_changed_byte_never_crashes(position: int, value: int, layout: int) -> None:
    chosen = (CAUSAL, SEGMENTED)[layout]
    data = bytearray(written(chosen, 1000, 4, random_pieces(chosen, 1000, 4)))
    data[position % len(data)] = value
    try:
        _, pieces = read(chosen, bytes(data))
    except ERRORS:
        return
    assert sum(piece.codes.size for piece in pieces) <= len(data)


@quick
@given(data=st.binary(max_size=200))
def test_noise_never_crashes(data: bytes) -> None:
    for prefix in (b"", b"ECDC", b"ECDC\0\0\0\0", damaged()[:40]):
        with pytest.raises(ERRORS):
            read(CAUSAL, prefix + data)
