"""The description of an item beside its codes: a JSON object, and its checks on the way back."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from encodec_fast._native import CodeArray
from encodec_fast.batch.names import MAX_KEY_BYTES
from encodec_fast.batch.tokens import Tokens

FORMAT = 1
# A segmented model adds about 25 bytes a second of audio: this is a month of it.
MAX_JSON = 1 << 26
# Of an item: a small file could claim any number. 31 hours at 24 kbps, 124 at 6.
MAX_CODES = 1 << 28
_MAX_SOURCE = 1 << 16
_MAX_SAMPLES = 1 << 53
_MAX_RATE = 1 << 22
_MAX_LEVEL = float(np.finfo(np.float32).max)


def describe(tokens: Tokens) -> dict[str, Any]:
    """All of an item but its codes and what its extras hold, as JSON can hold it. Raises ValueError
    for an item that no reader would take."""
    about = {
        "format": FORMAT,
        "key": tokens.key,
        "segment_frames": [int(frames) for frames in tokens.segment_frames],
        "scales": None if tokens.scales is None else [float(scale) for scale in tokens.scales],
        "audio_length": int(tokens.audio_length),
        "sample_rate": int(tokens.sample_rate),
        "model": tokens.model,
        "model_hash": tokens.model_hash,
        "source": tokens.source,
        "extra": sorted(tokens.extra),
    }
    try:
        restore(about, tokens.codes, tokens.extra)
    except ValueError as error:
        raise ValueError(f"item {tokens.key!r}: {error}") from None
    return about


def dump(about: dict[str, Any]) -> bytes:
    """An object as UTF-8, the same bytes for the same object. Raises ValueError for one that no
    reader would take."""
    data = json.dumps(about, separators=(",", ":"), ensure_ascii=False).encode()
    if len(data) > MAX_JSON:
        raise ValueError(f"expected a description of at most {MAX_JSON} bytes, found {len(data)}")
    return data


def parse(data: bytes) -> dict[str, Any]:
    """The object in what `dump` wrote. Raises ValueError for anything else."""
    if len(data) > MAX_JSON:
        raise ValueError(f"expected a description of at most {MAX_JSON} bytes, found {len(data)}")
    try:
        about = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected an item's description, found no JSON ({error})") from None
    if not isinstance(about, dict):
        raise ValueError(f"expected an item's description, found {type(about).__name__}")
    return about


def extra_names(about: dict[str, Any]) -> list[str]:
    """The names of an item's extras. Raises ValueError where they are no different names."""
    names = about.get("extra")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("extra: expected a list of names")
    if len(set(names)) != len(names):
        raise ValueError("extra: expected different names")
    return names


def restore(about: dict[str, Any], codes: Any, extra: dict[str, bytes]) -> Tokens:
    """The item that `about` describes. Raises ValueError, naming the field, for what no item has:
    files come from anywhere."""
    if about.get("format") != FORMAT:
        raise ValueError(f"format: expected {FORMAT}, found {about.get('format')!r}")
    if not isinstance(codes, np.ndarray) or codes.dtype != np.uint16 or codes.ndim != 2:
        raise ValueError("codes: expected uint16 [n_q, frames]")
    if not 1 <= codes.size <= MAX_CODES:
        raise ValueError(f"codes: expected 1..{MAX_CODES} codes, found shape {list(codes.shape)}")
    if sorted(extra) != sorted(extra_names(about)):
        raise ValueError("extra: expected the members that the description names")
    segment_frames = _segment_frames(about.get("segment_frames"), codes)
    return Tokens(
        key=_text(about, "key", 1),
        codes=codes,
        segment_frames=segment_frames,
        scales=_scales(about.get("scales"), len(segment_frames)),
        audio_length=_integer(about, "audio_length", _MAX_SAMPLES),
        sample_rate=_integer(about, "sample_rate", _MAX_RATE),
        model=_text(about, "model", 1),
        model_hash=_text(about, "model_hash", 0),
        source=_text(about, "source", 0, _MAX_SOURCE),
        extra=extra,
    )


def _segment_frames(found: Any, codes: CodeArray) -> tuple[int, ...]:
    whole = isinstance(found, list) and all(type(frames) is int and frames > 0 for frames in found)
    if not whole or sum(found) != codes.shape[1]:
        raise ValueError(
            f"segment_frames: expected positive integers with a sum of {codes.shape[1]} frames"
        )
    return tuple(found)


def _scales(found: Any, segments: int) -> npt.NDArray[np.float32] | None:
    if found is None:
        return None
    if not isinstance(found, list) or len(found) != segments:
        raise ValueError(f"scales: expected one for each of {segments} segments")
    if not all(type(scale) in (int, float) and 0 <= scale <= _MAX_LEVEL for scale in found):
        raise ValueError("scales: expected finite levels")
    return np.array(found, np.float32)


def _integer(about: dict[str, Any], field: str, high: int) -> int:
    value = about.get(field)
    if type(value) is not int or not 1 <= value <= high:
        raise ValueError(f"{field}: expected an integer in 1..{high}, found {value!r}")
    return value


def _text(about: dict[str, Any], field: str, low: int, high: int = MAX_KEY_BYTES) -> str:
    value = about.get(field)
    if not isinstance(value, str):
        raise ValueError(f"{field}: expected text, found {type(value).__name__}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{field}: expected valid Unicode, found {value!r}") from None
    if not low <= size <= high:
        raise ValueError(f"{field}: expected {low}..{high} bytes of UTF-8, found {size}")
    return value
