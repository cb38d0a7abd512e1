"""The version 1 container as bytes: exact layout, damage, hostile numbers."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encodec_fast import container
from encodec_fast._native import crc32c
from encodec_fast.chunk_header import Header, Opened
from encodec_fast.chunks import Chunk, ChunkReader, ChunkWriter, End, read_index

quick = settings(derandomize=True, max_examples=80, deadline=None)

HEADER = Header("nano", "0123abcd", 24000, 1, 2, chunk_frames=10, key_chunks=3)
HOP = 320


def test_the_checksum() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"6789", crc32c(b"12345")) == crc32c(b"123456789")
    assert crc32c(b"") == 0


def test_exact_bytes() -> None:
    file = io.BytesIO()
    writer = ChunkWriter(file, HEADER)
    writer.write(b"abc", 10)
    writer.write(b"d", 3)
    writer.finish(4000)
    text = b'{"m":"nano","h":"0123abcd","sr":24000,"nc":2,"c":10,"k":3}'
    header = b"ECDC\x01" + len(text).to_bytes(4, "big") + text
    seed = crc32c(header)
    first, last = b"\xc0\x00\x03", b"\xc1\x01\x01\x03"
    end = b"\xce\x02\xa0\x1f"  # of one key interval
    expected = [header, seed.to_bytes(4, "little")]
    for record, payload in ((first, b"abc"), (last, b"d")):
        crc = crc32c(payload, crc32c(record, seed))
        expected += [record, crc.to_bytes(4, "little"), payload]
    expected += [end, crc32c(end, seed).to_bytes(4, "little"), b"\x0b\0\0"]
    assert file.getvalue() == b"".join(expected)


def opened(data: bytes) -> tuple[io.BytesIO, Opened]:
    stream = io.BytesIO(data)
    found = container.read_header(stream, "file")
    assert isinstance(found, Opened)
    return stream, found


def records(data: bytes) -> tuple[list[Chunk | End], bool]:
    stream, found = opened(data)
    reader = ChunkReader(stream, found, HOP)
    return list(reader), reader.damaged


def random_file(count: int, seed: int = 0, header: Header = HEADER) -> tuple[bytes, list[Chunk]]:
    rng = np.random.default_rng(seed)
    file = io.BytesIO()
    writer = ChunkWriter(file, header)
    chunks = []
    for number in range(count):
        frames = header.chunk_frames if number + 1 < count else header.chunk_frames - 1
        # Bytes that look like the start of a record are frequent.
        payload = rng.choice([0, 1, 9, 0xC0, 0xC1, 0xCE, 255], rng.integers(0, 60)).astype("u1")
        chunks.append(Chunk(number, frames, payload.tobytes()))
        writer.write(chunks[-1].payload, frames)
    writer.finish(max(0, count * header.chunk_frames - 1) * HOP)
    return file.getvalue(), chunks


@quick
@given(count=st.integers(0, 12), seed=st.integers(0, 1000), size=st.integers(1, 40))
def test_round_trip(count: int, seed: int, size: int) -> None:
    data, chunks = random_file(count, seed)
    end = End(count, max(0, count * 10 - 1) * HOP)
    assert records(data) == ([*chunks, end], False)

    class Pipe(io.BytesIO):
        def read1(self, _: int | None = -1) -> bytes:
            return super().read(size)

    stream = Pipe(data)
    found = container.read_header(stream, "file")
    assert isinstance(found, Opened)
    assert list(ChunkReader(stream, found, HOP)) == [*chunks, end]


def test_index() -> None:
    data, chunks = random_file(10)
    stream, found = opened(data)
    index = read_index(stream, found, HOP)
    assert index is not None and index.end == End(10, 99 * HOP)
    assert stream.tell() == found.size
    assert len(index.offsets) == 4
    for interval, offset in enumerate(index.offsets):
        stream.seek(offset)
        reader = ChunkReader(stream, found, HOP)
        reader.begin_at(3 * interval)
        assert next(iter(reader)) == chunks[3 * interval]


def test_a_file_within_a_stream() -> None:
    data, chunks = random_file(10)
    stream = io.BytesIO(b"before" + data)
    stream.seek(6)
    found = container.read_header(stream, "file")
    assert isinstance(found, Opened)
    index = read_index(stream, found, HOP)
    assert index is not None and stream.tell() == found.size + 6
    stream.seek(index.offsets[1])
    reader = ChunkReader(stream, found, HOP)
    reader.begin_at(3)
    assert next(iter(reader)) == chunks[3]


def flips(data: bytes, first: int, last: int) -> Iterator[tuple[int, bytes]]:
    for bit in range(8 * first, 8 * last):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bit // 8, bytes(changed)


def test_every_flipped_bit_costs_one_chunk_at_most() -> None:
    data, chunks = random_file(7)
    _, found = opened(data)
    lost = 0
    for position, changed in flips(data, found.size, len(data)):
        survivors, damaged = records(changed)
        kept = [record for record in survivors if isinstance(record, Chunk)]
        assert all(chunk in chunks for chunk in kept)
        assert len(kept) >= 6, position
        lost += len(kept) == 6
        assert damaged or kept == chunks
    assert lost > 7 * 8


def test_a_flipped_bit_of_the_header_is_put_right() -> None:
    data, chunks = random_file(3)
    _, found = opened(data)
    hopeless = 0
    for position, changed in flips(data, 0, found.size):
        try:
            survivors, damaged = records(changed)
        except (ValueError, EOFError):
            # The version's lowest bit makes a header of the other version of it.
            hopeless += 1
            assert position == 4
            continue
        assert damaged
        assert [record for record in survivors if isinstance(record, Chunk)] == chunks
    assert hopeless == 1
    twice = bytearray(data)
    twice[12] ^= 1
    twice[20] ^= 1
    with pytest.raises(ValueError, match="damaged header"):
        records(bytes(twice))


def test_truncation_at_every_byte() -> None:
    data, chunks = random_file(5)
    _, found = opened(data)
    for size in range(len(data)):
        if size < found.size:
            with pytest.raises(EOFError):
                records(data[:size])
            continue
        survivors, _ = records(data[:size])
        kept = [record for record in survivors if isinstance(record, Chunk)]
        assert kept == chunks[: len(kept)]
        stream, again = opened(data[:size])
        assert read_index(stream, again, HOP) is None


def test_missing_repeated_and_foreign_chunks() -> None:
    data, chunks = random_file(6)
    other, _ = random_file(6, 1, replace(HEADER, model="other"))
    stream, found = opened(data)
    index = read_index(stream, found, HOP)
    assert index is not None
    edges = [*index.offsets, len(data)]
    first, rest = (data[a:b] for a, b in pairwise(edges))
    head = data[: found.size]
    assert [r for r in records(head + rest)[0] if isinstance(r, Chunk)] == chunks[3:]
    # A chunk that was there before is no chunk, nor is one of another file.
    repeated, damaged = records(head + first + first + rest)
    assert [r for r in repeated if isinstance(r, Chunk)] == chunks and damaged
    _, foreign = opened(other)
    mixed, damaged = records(head + first + other[foreign.size : foreign.size + 60] + rest)
    assert [r for r in mixed if isinstance(r, Chunk)] == chunks and damaged


def test_a_number_that_is_absurd() -> None:
    """Chunks may be missing, but not hours of them."""
    file = io.BytesIO()
    writer = ChunkWriter(file, HEADER)
    hour = 3600 * 24000 // (10 * HOP)
    for number in (5, hour + 50_000, 6 + hour // 2):
        writer._number = number
        writer.write(b"x", 10)
    found = [record.number for record in records(file.getvalue())[0] if isinstance(record, Chunk)]
    assert found == [5, 6 + hour // 2]


def test_sizes_that_are_absurd() -> None:
    data, chunks = random_file(3)
    stream, found = opened(data)
    head = data[: found.size]
    for forged in (b"\xc0\x00\xff\xff\xff\x7f", b"\xc1\x00\x01\x00", b"\xc0" + b"\xff" * 30):
        survivors, damaged = records(head + forged + data[found.size :])
        assert [r for r in survivors if isinstance(r, Chunk)] == chunks and damaged
    for size in (0, 1, 3, 4, 5, len(data), (1 << 24) - 1):
        stream = io.BytesIO(data[:-3] + size.to_bytes(3, "little"))
        again = container.read_header(stream, "file")
        assert isinstance(again, Opened)
        assert read_index(stream, again, HOP) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"chunk_frames": 0}, {"chunk_frames": 1 << 17}, {"key_chunks": 0}, {"n_codebooks": 0},
        {"n_codebooks": 1 << 13}, {"n_codebooks": 1000, "chunk_frames": 60000}, {"entropy": "huge"},
        {"entropy": "lm"}, {"model_hash": "0123ABCD"}, {"model_hash": "12"}, {"start": "soon"},
        {"sample_rate": True}, {"channels": 65}, {"channels": 1.0}, {"metadata": [1]},
        {"key_chunks": 60000, "chunk_frames": 60000},
    ],
)  # fmt: skip
def test_headers_that_no_file_has(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        replace(HEADER, **changes)  # type: ignore[arg-type]  # wrong types on purpose


@pytest.mark.parametrize(
    "text", [b"[]", b"{", b"1", b"\xff", b'{"m":"x"}', b'{"m":[],"h":1,"sr":1,"nc":1,"c":1}']
)
def test_metadata_that_describes_no_file(text: bytes) -> None:
    data = b"ECDC\x01" + len(text).to_bytes(4, "big") + text
    with pytest.raises(ValueError, match="damaged header"):
        opened(data + crc32c(data).to_bytes(4, "little"))


def test_free_metadata() -> None:
    header = replace(HEADER, metadata={"title": "Ünïcode", "n": [1, {"a": None}]})
    assert opened(header.to_bytes())[1].header == header
    for bad in ({"a": object()}, {"a": float("nan")}, {"a": "x" * (1 << 16)}):
        with pytest.raises(ValueError, match="metadata"):
            replace(HEADER, metadata=bad).to_bytes()


@quick
@given(data=st.data())
def test_noise_never_crashes(data: st.DataObject) -> None:
    file, chunks = random_file(6)
    changed = bytearray(file)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(changed)))
        action = data.draw(st.sampled_from(["set", "insert", "cut"]))
        noise = data.draw(st.binary(min_size=1, max_size=8))
        if action == "cut":
            del changed[at : at + len(noise)]
        else:
            changed[at : at + (len(noise) if action == "set" else 0)] = noise
    try:
        survivors, _ = records(bytes(changed))
    except (ValueError, EOFError):
        return
    assert all(record in chunks for record in survivors if isinstance(record, Chunk))
