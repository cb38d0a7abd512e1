"""Tokens as .ecdc files of version 1 (docs/format.md), one an item; key, source and extras are in
the header's metadata, whose 64 KiB bound them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import IO, Any

import numpy as np

from encodec_fast import container, ecdc
from encodec_fast.batch import item_json
from encodec_fast.batch.tokens import Tokens
from encodec_fast.codec import Codec
from encodec_fast.codes import checked_pieces
from encodec_fast.segments import Gap
from encodec_fast.store import find_model


def write(items: Iterable[Tokens], stream: IO[bytes], codec: Codec) -> None:
    (tokens,) = items
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
    writer = codec.piece_writer(tokens.codes.shape[0], metadata=metadata)(stream)
    for piece in checked_pieces(tokens.to_codes(), codec.program):
        writer.write(piece)
    writer.finish(tokens.audio_length)


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
