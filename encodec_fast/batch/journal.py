"""The journal of a run: what was done, record by record, that a kill at any moment leaves sound.

A record is its length and CRC-32C (two uint32, little-endian), the length of its JSON (uint32), the
JSON, and bytes. What a kill has left of a last record is cut off when the journal is opened again.
"""

from __future__ import annotations

import functools
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from encodec_fast import _native
from encodec_fast.batch.tokens import Tokens
from encodec_fast.output import naming

_HEAD = struct.Struct("<II")
_JSON = struct.Struct("<I")


class Record(NamedTuple):
    """A record's JSON object, the bytes behind it, and where it begins in the file."""

    about: dict[str, Any]
    data: memoryview
    offset: int


class Journal:
    """Records in a file, which need not exist. Not for several threads at once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def records(self) -> Iterator[Record]:
        """All sound records; what follows them is cut off at the end. Raises OSError."""
        if not self.path.exists():
            return
        with naming(str(self.path)), self.path.open("rb") as file:
            while (record := _read(file)) is not None:
                yield record
            sound = file.tell()
        if self.path.stat().st_size > sound:
            os.truncate(self.path, sound)

    def read(self, offset: int) -> Record:
        """The record that begins at `offset`. Raises OSError where there is none any more."""
        with self.path.open("rb") as file:
            file.seek(offset)
            record = _read(file)
        if record is None:
            raise OSError(f"{self.path}: damaged at byte {offset}: run the command again")
        return record

    def append(self, about: dict[str, Any], *data: Any) -> int:
        """Adds a record of what can be JSON and of buffers of bytes, and returns where it begins.
        Raises OSError where it cannot be written."""
        text = json.dumps(about).encode()
        # Not joined: extras may be large.
        body = [_JSON.pack(len(text)), text, *map(bytes, data)]
        checksum = functools.reduce(lambda value, part: _native.crc32c(part, value), body, 0)
        with naming(str(self.path)), self.path.open("ab", buffering=0) as file:
            offset = file.tell()
            try:
                for part in (_HEAD.pack(sum(map(len, body)), checksum), *body):
                    rest = memoryview(part)
                    while rest:
                        rest = rest[file.write(rest) :]
            except OSError:  # the disk is full, say
                file.truncate(offset)
                raise
        return offset

    def remove(self) -> None:
        """Removes the file, if it is there."""
        self.path.unlink(missing_ok=True)


def _read(file: Any) -> Record | None:
    """The next record, or None, with the file at the record's beginning, where there is none."""
    offset = file.tell()
    head = file.read(_HEAD.size)
    if len(head) == _HEAD.size:
        size, checksum = _HEAD.unpack(head)
        left = os.fstat(file.fileno()).st_size - file.tell()
        if _JSON.size <= size <= left:
            body = file.read(size)
            end = _JSON.size + _JSON.unpack_from(body)[0]
            if _native.crc32c(body) == checksum and end <= size:
                return Record(json.loads(body[_JSON.size : end]), memoryview(body)[end:], offset)
    file.seek(offset)
    return None


def pack_tokens(tokens: Tokens) -> tuple[Any, ...]:
    """Tokens as a record, without the model, which is the run's: what `append` takes."""
    about = {
        "key": tokens.key,
        "source": tokens.source,
        "shape": list(tokens.codes.shape),
        "segment_frames": list(tokens.segment_frames),
        "scales": tokens.scales is not None,
        "samples": tokens.audio_length,
        "extra": {name: len(data) for name, data in tokens.extra.items()},
    }
    codes = np.ascontiguousarray(tokens.codes, "<u2")
    scales = () if tokens.scales is None else (np.ascontiguousarray(tokens.scales, "<f4"),)
    return about, codes, *scales, *tokens.extra.values()


def unpack_tokens(record: Record, sample_rate: int, model: str, model_hash: str) -> Tokens:
    """The inverse of pack_tokens, with the run's model."""
    about, data = record.about, record.data
    n_q, frames = about["shape"]
    codes = np.frombuffer(data, "<u2", n_q * frames).astype(np.uint16, copy=False)
    at = 2 * n_q * frames
    scales = None
    if about["scales"]:
        count = len(about["segment_frames"])
        scales = np.frombuffer(data, "<f4", count, at).astype(np.float32)
        at += 4 * count
    extra = {}
    for name, size in about["extra"].items():
        extra[name] = bytes(data[at : at + size])
        at += size
    return Tokens(
        key=about["key"],
        codes=codes.reshape(n_q, frames),
        segment_frames=tuple(about["segment_frames"]),
        scales=scales,
        audio_length=about["samples"],
        sample_rate=sample_rate,
        model=model,
        model_hash=model_hash,
        source=about["source"],
        extra=extra,
    )
