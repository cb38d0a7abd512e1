"""Tokens as .ecdc files of version 1 (docs/format.md), one an item; key, source and extras are in
the header's metadata, whose 64 KiB bound them."""

from __future__ import annotations

import base64
import binascii
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any

import numpy as np

from encodec_fast import chunk_codes, container, ecdc
from encodec_fast.batch import item_json
from encodec_fast.batch.coding import Failure
from encodec_fast.batch.tokens import Tokens
from encodec_fast.chunk_codes import files_of
from encodec_fast.chunk_header import Header
from encodec_fast.codec import Codec
from encodec_fast.codes import checked_pieces
from encodec_fast.payloads import run_lanes
from encodec_fast.segments import Gap
from encodec_fast.store import find_model


@dataclass(frozen=True)
class Packed(Tokens):
    """Tokens with the bytes of their file, which `write` writes."""

    file: bytes = b""


def packed(
    outcomes: Iterable[Tokens | Failure], codec: Codec, entropy: str
) -> Iterator[Tokens | Failure]:
    """The outcomes with the files of their tokens, in the entropy mode of that name: a language
    model codes the key intervals of several together, as many as it has lanes. Tokens that no file
    can hold are a failure."""
    waiting: list[tuple[Tokens, Header]] = []
    lanes = run_lanes(codec.program, entropy, chunk_codes.MANY_LANES)
    intervals = 0
    for outcome in outcomes:
        if isinstance(outcome, Failure):
            yield outcome
            continue
        try:
            header = _header(outcome, codec, entropy)
        except ValueError as error:
            yield _failure(outcome, error)
            continue
        waiting.append((outcome, header))
        frames = header.chunk_frames * header.key_chunks
        intervals += sum(-(-count // frames) for count in outcome.segment_frames)
        if intervals >= lanes:
            yield from _packed(waiting, codec)
            waiting, intervals = [], 0
    yield from _packed(waiting, codec)


def write(items: Iterable[Tokens], stream: IO[bytes], codec: Codec) -> None:
    (tokens,) = items
    if isinstance(tokens, Packed):
        stream.write(tokens.file)
    else:
        stream.write(*_files([(tokens, _header(tokens, codec, "none"))], codec))


def _packed(items: Sequence[tuple[Tokens, Header]], codec: Codec) -> Iterator[Tokens | Failure]:
    try:
        files = _files(items, codec)
    except ValueError as error:
        if len(items) == 1:
            yield _failure(items[0][0], error)
        else:  # of one of them, which the others are not to suffer from
            for item in items:
                yield from _packed([item], codec)
        return
    for (tokens, _), file in zip(items, files, strict=True):
        fields = {field.name: getattr(tokens, field.name) for field in dataclasses.fields(tokens)}
        yield Packed(**fields, file=file)


def _files(items: Sequence[tuple[Tokens, Header]], codec: Codec) -> list[bytes]:
    entropy_coded = any(header.entropy != "none" for _, header in items)
    recordings = [
        (header, checked_pieces(tokens.to_codes(), codec.program), tokens.audio_length)
        for tokens, header in items
    ]
    return files_of(codec.program, codec.entropy_model if entropy_coded else None, recordings)


def _failure(tokens: Tokens, error: ValueError) -> Failure:
    return Failure(tokens.key, tokens.source, f"ecdc: {error}")


def _header(tokens: Tokens, codec: Codec, entropy: str) -> Header:
    """The header of an item's file. Raises ValueError for an item that no file can hold."""
    item_json.describe(tokens)
    metadata: dict[str, Any] = {"key": tokens.key, "source": tokens.source}
    if tokens.extra:
        metadata["extra"] = {
            name: base64.b64encode(tokens.extra[name]).decode() for name in sorted(tokens.extra)
        }
    if tokens.model_hash != codec.program.hash:
        raise ValueError(
            f"model_hash: expected {codec.program.hash} of {codec.name}, found {tokens.model_hash}"
        )
    header, _ = codec.file_header(tokens.codes.shape[0], entropy, metadata=metadata)
    header.to_bytes()  # refuses too much metadata
    return header


def read(stream: IO[bytes], codec: Codec | None) -> Iterator[Tokens]:
    header = container.read_header(stream, "header")
    if isinstance(header, ecdc.Header):
        raise ValueError("expected version 1 of .ecdc, which has the key, found version 0")
    about = header.header
    if codec is None or codec.name != about.model:
        codec = _codec(about.model)
    metadata = about.metadata
    recording = codec.open_recording(stream, header, "codes")
    segments: list[list[Any]] = []
    scales: list[float] = []
    codes = 0
    for piece in recording.pieces()[1]:
        if isinstance(piece, Gap) or recording.damaged:
            raise ValueError("damaged (`encodec-fast decompress` gives what survives)")
        if piece.start:
            segments.append([])
            if piece.scale is not None:
                scales.append(piece.scale)
        segments[-1].append(piece.codes)
        codes += piece.codes.size
        if codes > item_json.MAX_CODES:  # under a language model they may take next to no bytes
            raise ValueError(f"expected at most {item_json.MAX_CODES} codes")
    if recording.damaged or recording.audio_length is None:
        raise ValueError("damaged, or without its end")
    description = {
        "format": item_json.FORMAT,
        "key": metadata.get("key"),
        "segment_frames": [sum(part.shape[1] for part in parts) for parts in segments],
        "scales": scales if codec.normalize else None,
        "audio_length": recording.audio_length,
        "sample_rate": about.sample_rate,
        "model": about.model,
        "model_hash": about.model_hash,
        "source": metadata.get("source"),
    }
    extra = _extra(metadata.get("extra", {}))
    description["extra"] = sorted(extra)
    parts = [part for parts in segments for part in parts]
    joined = np.concatenate(parts, axis=1) if parts else np.zeros((about.n_codebooks, 0), np.uint16)
    yield item_json.restore(description, joined, extra)


@lru_cache(maxsize=4)
def _codec(name: str) -> Codec:
    """A model that files name, loaded once for all of them."""
    return Codec.load(find_model(name))


def _extra(found: Any) -> dict[str, bytes]:
    try:
        return {name: base64.b64decode(text, validate=True) for name, text in found.items()}
    except (AttributeError, TypeError, binascii.Error):
        raise ValueError("metadata extra: expected an object of base64 texts") from None
