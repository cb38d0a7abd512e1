"""The chunks of an `.ecdc` file, version 1, as bytes: records with checksums, and an index.

docs/format.md specifies them. What the payloads mean is chunk_codes's business.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import IO, NamedTuple

from encodec_fast._native import crc32c
from encodec_fast.chunk_header import CRC, Header, Opened

# Chunks that may be missing in front of one that is there, in seconds of audio: a hostile number
# must not make hours of silence out of a few bytes.
MAX_GAP_SECONDS = 3600
_FULL, _SHORT, _END = 0xC0, 0xC1, 0xCE
_FLAG = re.compile(b"[\xc0\xc1\xce]")
_MAX_VARINT = 7  # bytes
# Bytes that failed checksums per byte that is skipped, at most: damaged files of a hostile kind
# cost a time that is linear in their size.
_SEARCH_EFFORT = 1024
_MAX_EFFORT = 1 << 26
_SIZE_BYTES = 3
_MAX_INDEX = 1 << 20  # bytes: a month of speech or more; parsed, it takes 40 times as much


class Chunk(NamedTuple):
    """A chunk: its number from the start of the file, its frames and its payload."""

    number: int
    frames: int
    payload: bytes


class End(NamedTuple):
    """The end record: the number of chunks and the samples per channel of the recording."""

    chunks: int
    audio_length: int


class Index(NamedTuple):
    """What the end of a finished file tells: the end record, and the offset of each key chunk."""

    end: End
    offsets: list[int]


class ChunkWriter:
    """Writes a file chunk by chunk; each is passed on to the stream at once.

    The constructor writes the header.
    """

    def __init__(self, stream: IO[bytes], header: Header) -> None:
        data = header.to_bytes()
        (self._seed,) = CRC.unpack(data[-CRC.size :])
        self._header = header
        self._stream = stream
        self._number = 0
        self._interval = 0  # bytes since the last key chunk
        self._index = bytearray()
        stream.write(data)
        stream.flush()

    def write(self, payload: bytes, frames: int) -> None:
        """Appends a chunk. Only the last one may have fewer frames than the header says."""
        header = self._header
        full = frames == header.chunk_frames
        if self.is_key and self._number:
            self._close_interval()
        record = bytearray([_FULL if full else _SHORT])
        record += _varint(self._number) + _varint(len(payload))
        if not full:
            record += _varint(frames)
        record += CRC.pack(crc32c(payload, crc32c(bytes(record), self._seed)))
        self._stream.write(record + payload)
        self._stream.flush()
        self._interval += len(record) + len(payload)
        self._number += 1

    @property
    def is_key(self) -> bool:
        """Whether the next chunk is a key chunk."""
        return self._number % self._header.key_chunks == 0

    def finish(self, audio_length: int) -> None:
        """Appends the end record of a recording of so many samples per channel."""
        record = bytes([_END]) + _varint(self._number) + _varint(audio_length) + self._index
        record += CRC.pack(crc32c(record, self._seed))
        size = len(record) + _SIZE_BYTES
        # A size that does not fit is left out: such a file is read from its start.
        size = 0 if size >> (8 * _SIZE_BYTES) else size
        self._stream.write(record + size.to_bytes(_SIZE_BYTES, "little"))

    def _close_interval(self) -> None:
        self._index += _varint(self._interval)
        self._interval = 0


class ChunkReader:
    """The intact chunks of a stream, in order, and its end record where there is one.

    Damage is skipped: `damaged` then becomes true. A chunk is intact if its checksum fits and its
    number is not below those before, nor more than `max_gap` above. Memory is bounded by the size
    that chunks may have, time by a multiple of the stream's length.
    """

    def __init__(self, stream: IO[bytes], opened: Opened, hop: int) -> None:
        self.damaged = opened.damaged
        self._read = getattr(stream, "read1", stream.read)  # whatever is there, for live streams
        self._header = opened.header
        self._seed = opened.seed
        self._buffer = bytearray(opened.rest)
        self._ended = False
        self._expected = 0
        self._effort = 0
        seconds_per_chunk = opened.header.chunk_frames * hop / opened.header.sample_rate
        self.max_gap = int(MAX_GAP_SECONDS / seconds_per_chunk) + 1

    def begin_at(self, number: int) -> None:
        """The stream was moved to chunk `number`, by an index."""
        self._buffer.clear()
        self._expected = number

    def __iter__(self) -> Iterator[Chunk | End]:
        while self._has(0):
            found = self._record()
            if found is None:
                self._search()
                continue
            record, size = found
            del self._buffer[:size]
            yield record
            if isinstance(record, End):
                return
            self._expected = record.number + 1

    def _search(self) -> None:
        """Drop what cannot begin a record."""
        self.damaged = True
        match = _FLAG.search(self._buffer, 1)
        passed = match.start() if match else len(self._buffer)
        self._effort = max(0, self._effort - _SEARCH_EFFORT * passed)
        del self._buffer[:passed]

    def _record(self) -> tuple[Chunk | End, int] | None:
        """The record at the start of the buffer and its size, None where none is intact."""
        flag = self._buffer[0]
        if flag == _END:
            found = self.end_record()
            return (found[0], found[2]) if found else None
        if flag not in (_FULL, _SHORT):
            return None
        number, at = self.varint(1)
        if not self._follows(number):
            return None
        size, at = self.varint(at)
        frames = self._header.chunk_frames
        if flag == _SHORT:
            frames, at = self.varint(at)
            if not 1 <= frames < self._header.chunk_frames:
                return None
        end = at + CRC.size + size
        if not 0 <= size <= self._header.max_payload or self._effort > _MAX_EFFORT:
            return None
        if not self._has(end - 1):
            return None
        payload = bytes(self._buffer[at + CRC.size : end])
        crc = crc32c(payload, crc32c(bytes(self._buffer[:at]), self._seed))
        if CRC.unpack_from(self._buffer, at)[0] != crc:
            self._effort += size
            return None
        return Chunk(number, frames, payload), end

    def _follows(self, number: int) -> bool:
        return self._expected <= number <= self._expected + self.max_gap

    def end_record(self) -> tuple[End, list[int], int] | None:
        """The end record at the start of the buffer, the bytes of every key interval but the last,
        and where it ends."""
        chunks, at = self.varint(1)
        audio_length, at = self.varint(at)
        if audio_length < 0 or not self._follows(chunks):
            return None
        sizes = []
        for _ in range(1, -(-chunks // self._header.key_chunks)):
            size, at = self.varint(at)
            if size < 0:
                return None
            sizes.append(size)
        if not self._has(at + CRC.size - 1):
            return None
        if CRC.unpack_from(self._buffer, at)[0] != crc32c(bytes(self._buffer[:at]), self._seed):
            return None
        return End(chunks, audio_length), sizes, at + CRC.size

    def varint(self, at: int) -> tuple[int, int]:
        """The number at an offset of the buffer (-1: none) and where it ends."""
        value = 0
        for i in range(_MAX_VARINT):
            if not self._has(at + i):
                break
            byte = self._buffer[at + i]
            value |= (byte & 127) << (7 * i)
            if byte < 128:
                return value, at + i + 1
        return -1, at

    def _has(self, at: int) -> bool:
        """Whether the buffer reaches beyond offset `at`, after reading what is missing."""
        while len(self._buffer) <= at and not self._ended:
            data = self._read(max(at + 1 - len(self._buffer), 1 << 14))
            self._ended = not data
            self._buffer += data
        return len(self._buffer) > at


def read_index(stream: IO[bytes], opened: Opened, hop: int) -> Index | None:
    """The index of a finished file, by seeking; None where it has none that is intact. Moves the
    stream from where its header was read to the first chunk, so that `opened.rest` comes again."""
    first = stream.tell() - len(opened.rest)
    try:
        return _read_index(stream, opened, hop, first)
    finally:
        stream.seek(first)


def _read_index(stream: IO[bytes], opened: Opened, hop: int, first: int) -> Index | None:
    length = stream.seek(0, 2)
    if length < first + _SIZE_BYTES:
        return None
    stream.seek(length - _SIZE_BYTES)
    size = int.from_bytes(stream.read(_SIZE_BYTES), "little")
    if not _SIZE_BYTES < size <= min(length - first, _MAX_INDEX):
        return None
    stream.seek(length - size)
    data = stream.read(size - _SIZE_BYTES)
    reader = ChunkReader(io.BytesIO(data), opened._replace(rest=b""), hop)
    reader.max_gap = len(data) * opened.header.key_chunks
    found = reader.end_record() if data[0] == _END else None
    if found is None or found[2] != len(data):
        return None
    end, sizes, _ = found
    offsets = list(accumulate(sizes, initial=first)) if end.chunks else []
    index = Index(end, offsets)
    return index if _fits_file(index, stream, opened, hop, first) else None


def _fits_file(index: Index, stream: IO[bytes], opened: Opened, hop: int, first: int) -> bool:
    """Whether the last key interval is where an index says, and whole: it is not, if bytes are
    missing or too many anywhere in front."""
    number = max(0, len(index.offsets) - 1) * opened.header.key_chunks
    stream.seek(index.offsets[-1] if index.offsets else first)
    reader = ChunkReader(stream, opened._replace(rest=b"", damaged=False), hop)
    reader.begin_at(number)
    for record in reader:
        if isinstance(record, End):
            return record == index.end and number == index.end.chunks and not reader.damaged
        if record.number != number:
            return False
        number += 1
    return False


def _varint(value: int) -> bytes:
    """A non-negative integer, seven bits a byte, the lowest first; bit 7 says that more follow."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
