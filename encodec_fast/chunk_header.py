"""The header of an `.ecdc` file, version 1 (docs/format.md): metadata with a checksum."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

from encodec_fast._native import crc32c
from encodec_fast.ecdc import MAGIC, PREFIX

VERSION = 1
ENTROPIES = ("none", "static", "lm")
STARTS = ("exact", "low_latency")
MAX_CHUNK_FRAMES = 1 << 16
# Codes of one chunk and of one key interval: what a reader may have to hold at once.
MAX_CHUNK_CODES = 1 << 20
MAX_INTERVAL_CODES = 1 << 22
CRC = struct.Struct("<I")
_MAX_JSON = 1 << 16
_MAX_REPAIRED = 1 << 12
_HASH = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True)
class Header:
    """The metadata of a version 1 file.

    model, model_hash: name and first eight hexadecimal digits of the SHA-256 of the program;
    entropy, entropy_hash: one of ENTROPIES, and the same of the entropy model ("" without one);
    chunk_frames: frames of every chunk but the last; key_chunks: chunks from one key chunk to the
    next; start: how the encoder's stream began (Codec.stream_encoder); metadata: free JSON. Raises
    ValueError for values that no file may have.
    """

    model: str
    model_hash: str
    sample_rate: int
    channels: int
    n_codebooks: int
    chunk_frames: int
    key_chunks: int = 1
    entropy: str = "none"
    entropy_hash: str = ""
    start: str = "exact"
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, number, high in (
            ("sample rate", self.sample_rate, 1 << 22),
            ("channels", self.channels, 64),
            ("codebooks", self.n_codebooks, 1 << 12),
            ("frames per chunk", self.chunk_frames, MAX_CHUNK_FRAMES),
            ("chunks per key interval", self.key_chunks, MAX_CHUNK_FRAMES),
        ):
            if type(number) is not int or not 1 <= number <= high:
                raise ValueError(f"{key}: expected an integer in 1..{high}, found {number!r}")
        if self.n_codebooks * self.chunk_frames > MAX_CHUNK_CODES:
            raise ValueError(
                f"frames per chunk: expected at most {MAX_CHUNK_CODES // self.n_codebooks} with "
                f"{self.n_codebooks} codebooks, found {self.chunk_frames}"
            )
        if self.n_codebooks * self.chunk_frames * self.key_chunks > MAX_INTERVAL_CODES:
            raise ValueError(
                f"chunks per key interval: expected fewer than {self.key_chunks} of "
                f"{self.chunk_frames} frames"
            )
        if self.entropy not in ENTROPIES:
            raise ValueError(f"entropy: expected {', '.join(ENTROPIES)}, found {self.entropy!r}")
        if self.start not in STARTS:
            raise ValueError(f"start: expected {' or '.join(STARTS)}, found {self.start!r}")
        if not isinstance(self.model, str) or not isinstance(self.metadata, dict):
            raise ValueError("model and metadata: expected a string and an object")
        hashes = [self.model_hash] + ([] if self.entropy == "none" else [self.entropy_hash])
        for value in hashes:
            if not isinstance(value, str) or not _HASH.fullmatch(value):
                raise ValueError(f"hash: expected 8 hexadecimal digits, found {value!r}")

    @property
    def max_payload(self) -> int:
        """Bytes that a chunk can have: no code costs more than 24 bits and a hair."""
        return 4 * self.n_codebooks * self.chunk_frames + 16

    def to_bytes(self) -> bytes:
        """The header as it stands in the file, checksum included. Raises ValueError for metadata
        that is not JSON or takes more than 64 KiB."""
        pairs = {
            "m": self.model,
            "h": self.model_hash,
            "sr": self.sample_rate,
            "ch": None if self.channels == 1 else self.channels,
            "nc": self.n_codebooks,
            "c": self.chunk_frames,
            "k": None if self.key_chunks == 1 else self.key_chunks,
            "e": None if self.entropy == "none" else self.entropy,
            "eh": self.entropy_hash or None,
            "s": None if self.start == "exact" else self.start,
            "meta": self.metadata or None,
        }
        given = {key: value for key, value in pairs.items() if value is not None}
        try:
            text = json.dumps(given, separators=(",", ":"), allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"metadata: expected what JSON can hold ({error})") from None
        if len(text) > _MAX_JSON:
            raise ValueError(f"metadata: expected at most {_MAX_JSON} bytes, found {len(text)}")
        data = PREFIX.pack(MAGIC, VERSION, len(text)) + text
        return data + CRC.pack(crc32c(data))


class Opened(NamedTuple):
    """A header read from a stream: where the chunks begin, the checksum that theirs start from, and
    the bytes behind the header that were read already. `damaged`: a bit of it was put right."""

    header: Header
    size: int
    seed: int
    rest: bytes
    damaged: bool


def read_header(prefix: bytes, stream: IO[bytes], name: str) -> Opened:
    """Reads a version 1 header whose first nine bytes are `prefix`.

    One flipped bit is put right with the checksum's help. Raises ValueError for a header that is
    damaged beyond that, and EOFError where the stream ends in it.
    """
    size = PREFIX.unpack(prefix)[2]
    data = prefix
    if size <= _MAX_JSON:
        data += _read_up_to(stream, size + CRC.size)
        if len(data) == len(prefix) + size + CRC.size and _crc_fits(data):
            return _opened(data, len(data), name, damaged=False)
    data += _read_up_to(stream, _MAX_REPAIRED - len(data))
    for bit in range(8 * min(len(data), _MAX_REPAIRED)):
        flipped = bytearray(data)
        flipped[bit >> 3] ^= 1 << (bit & 7)
        magic, version, length = PREFIX.unpack_from(flipped)
        end = len(prefix) + length + CRC.size
        if (magic, version) == (MAGIC, VERSION) and end <= len(data) and _crc_fits(flipped[:end]):
            return _opened(bytes(flipped), end, name, damaged=True)
    if size <= _MAX_JSON and len(data) < len(prefix) + size + CRC.size:
        raise EOFError(f"{name}: truncated (it ends in the header)")
    raise ValueError(f"{name}: damaged header (its checksum does not fit)")


def _crc_fits(data: bytes | bytearray) -> bool:
    return bool(CRC.unpack(data[-CRC.size :])[0] == crc32c(bytes(data[: -CRC.size])))


def _opened(data: bytes, size: int, name: str, *, damaged: bool) -> Opened:
    text = data[PREFIX.size : size - CRC.size]
    try:
        pairs = json.loads(text)
        header = Header(
            model=pairs["m"],
            model_hash=pairs["h"],
            sample_rate=pairs["sr"],
            channels=pairs.get("ch", 1),
            n_codebooks=pairs["nc"],
            chunk_frames=pairs["c"],
            key_chunks=pairs.get("k", 1),
            entropy=pairs.get("e", "none"),
            entropy_hash=pairs.get("eh", ""),
            start=pairs.get("s", "exact"),
            metadata=pairs.get("meta", {}),
        )
    except KeyError as error:
        raise ValueError(f"{name}: damaged header ({error} is missing)") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{name}: damaged header ({error})") from None
    (seed,) = CRC.unpack(data[size - CRC.size : size])
    return Opened(header, size, seed, data[size:], damaged)


def _read_up_to(stream: IO[bytes], size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = stream.read(size - len(data))
        if not more:
            break
        data += more
    return data
