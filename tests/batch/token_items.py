"""Items of data sets as tokenisation makes them, without coding any audio, and tiny codecs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from programs import ENTRIES, HOP, tiny_program

from encodec_fast.batch.tokens import Tokens
from encodec_fast.codec import Codec

WEIRD_KEYS = (
    "plain",
    "folder/sub folder/a.b.c",
    "..",
    "../../etc/passwd",
    "/absolute",
    "a//b/",
    "dots...",
    "mit Leerzeichen \t und\nZeilen",
    "ключ/日本語/🎵",
    "100%25",
    "a/extra",
    "a",
    "a/json",
    "__metadata__",
    "encodec_fast.tokens",
    "x" * 1000,
    "CON.wav",
    "\x00nul",
)
# An extra that is called like the codes, of a sample that was tokenised before.
NPY = (
    b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, 'shape': (0,), }".ljust(127)
    + b"\n"
)


def tiny_codec(folder: Path, kind: str = "reflect") -> Codec:
    return Codec.load(tiny_program(folder, kind))


def make_tokens(codec: Codec, key: str, seed: int = 0, **changes: Any) -> Tokens:
    """An item that a recording of the codec's model may have: random codes, scales and length."""
    rng = np.random.default_rng(seed)
    length = int(rng.integers(1, 1000))
    if codec.segment_length is None or codec.segment_stride is None:
        segments = [-(-length // HOP)]
    else:
        starts = range(0, length, codec.segment_stride)
        segments = [-(-min(codec.segment_length, length - start) // HOP) for start in starts]
    n_q = int(rng.integers(1, codec.n_codebooks + 1))
    scales = rng.uniform(0, 2, len(segments)).astype(np.float32) if codec.normalize else None
    fields: dict[str, Any] = {
        "key": key,
        "codes": rng.integers(0, ENTRIES, (n_q, sum(segments)), dtype=np.uint16),
        "segment_frames": tuple(segments),
        "scales": scales,
        "audio_length": length,
        "sample_rate": codec.sample_rate,
        "model": codec.name,
        "model_hash": codec.program.hash,
        "source": f"somewhere/{key}.flac",
        "extra": {"txt": b"words", "json": b'{"a": 1}', "codes.npy": NPY, "weird/ n%.x": b"\0\xff"},
    }
    return Tokens(**fields | changes)


def assert_equal(found: Tokens, expected: Tokens) -> None:
    """Every field, by value and by type."""
    assert found.codes.dtype == np.uint16
    np.testing.assert_array_equal(found.codes, expected.codes)
    if expected.scales is None:
        assert found.scales is None
    else:
        assert found.scales is not None and found.scales.dtype == np.float32
        assert found.scales.tobytes() == expected.scales.tobytes()
    for field in (
        "key",
        "segment_frames",
        "audio_length",
        "sample_rate",
        "model",
        "model_hash",
        "source",
        "extra",
    ):
        assert getattr(found, field) == getattr(expected, field), field
