"""Version 1 files of the tiny codecs, and what is in them."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import pytest
from signals import FloatArray

import encodec_fast as ef
from encodec_fast import container
from encodec_fast.piece_reader import PieceReader
from encodec_fast.segments import Piece

KINDS = ("reflect", "constant", "segments")
ENTROPIES = ("none", "static", "lm")
RATE = 8000
CHUNK = 0.03  # seconds: 40 frames


def recording(samples: int = 3001) -> FloatArray:
    rng = np.random.default_rng(samples)
    walk = np.cumsum(rng.standard_normal((1, samples)), axis=1)
    return (0.05 * walk).astype(np.float32)


def compressed(
    codec: ef.Codec, wav: FloatArray, entropy: str = "none", chunk: float = CHUNK, key: int = 2
) -> bytes:
    """As Codec.compress, in short chunks and key intervals of `key` chunks."""
    n_q = codec.n_q(6.0)
    buffer = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("encodec_fast.chunk_codes.KEY_SECONDS", key * chunk)
        writer = codec.piece_writer(n_q, entropy, chunk=chunk)(buffer)
    encoder = codec.block_encoder(n_q)
    for piece in [*encoder.push(wav), *encoder.flush()]:
        writer.write(piece)
    writer.finish(wav.shape[1])
    return buffer.getvalue()


def reader_of(codec: ef.Codec, data: bytes, live: bool = False) -> PieceReader:
    stream = io.BytesIO(data)
    opened = container.read_header(stream, "file")
    found = codec.open_recording(stream, opened, "file", live)
    assert isinstance(found, PieceReader)
    return found


def codes_of(codec: ef.Codec, data: bytes, live: bool = False) -> np.ndarray:
    """All codes [n_q, frames]; lost frames (segments) are -1."""
    _, pieces = reader_of(codec, data, live).pieces()
    parts = []
    for piece in pieces:
        if isinstance(piece, Piece):
            parts.append(piece.codes.astype(np.int64))
        else:
            frames = piece.length * (17 if codec.segment_length else 1)
            parts.append(np.full((codec.n_q(6.0), frames), -1))
    return np.concatenate(parts, axis=1)


def container_size(data: bytes) -> int:
    opened = container.read_header(io.BytesIO(data))
    assert isinstance(opened, container.Opened)
    return opened.size


def outcome(decompress: Any) -> tuple[Any, list[str]]:
    """What a call gives, or the error that it raises, and its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = decompress()
        except (ValueError, EOFError) as error:
            result = f"{type(error).__name__}: {error}"
    return result, [str(warning.message) for warning in caught]
