"""Codes: a coded recording as users hold it, and the checks of one that they built."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from encodec_fast import _native
from encodec_fast._native import CodeArray
from encodec_fast.program import Program
from encodec_fast.segments import Piece

_MAX_LEVEL = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Codes:
    """A coded recording.

    codes: one array [n_q, frames] per segment (a single one for models that do not segment), uint16
    (int64 when they come from a torch tensor); scales: one level per segment, or None for models
    that do not normalise; audio_length: samples per channel; sample_rate in Hz; model: its name.
    """

    codes: list[Any]
    scales: list[float] | None
    audio_length: int
    sample_rate: int
    model: str


def checked_pieces(codes: Codes, program: Program) -> list[Piece]:
    """The pieces of codes that a user may have built, one per segment. Raises ValueError for codes
    that no recording of the program's model has."""
    header = program.header
    if not isinstance(codes, Codes):
        raise ValueError(f"codes: expected Codes, found {type(codes).__name__}")
    if codes.model != header.name:
        raise ValueError(f"codes: expected model {header.name}, found {codes.model!r}")
    if codes.sample_rate != header.sample_rate:
        raise ValueError(
            f"codes: expected sample_rate {header.sample_rate}, found {codes.sample_rate!r}"
        )
    if len(codes.codes) == 0 or (not header.segmented and len(codes.codes) != 1):
        expected = "at least one segment" if header.segmented else "one segment"
        raise ValueError(f"codes: expected {expected}, found {len(codes.codes)}")
    scales: Sequence[float | None] = [None] * len(codes.codes)
    if header.normalize:
        scales = [] if codes.scales is None else codes.scales
        if len(scales) != len(codes.codes):
            raise ValueError(
                f"scales: expected one per segment ({len(codes.codes)}), found {len(scales)}"
            )
    pieces = []
    n_q: int | None = None
    for index, (segment, scale) in enumerate(zip(codes.codes, scales, strict=True)):
        name = f"codes[{index}]"
        if is_torch(segment):
            segment = segment.detach().cpu().numpy()
        array = _native.as_codes(name, segment, (n_q, None), header.codebook_size)
        n_q = array.shape[0]
        most = array.shape[1]
        if header.segment_length is not None:
            most = -(-header.segment_length // header.hop)
        if not 1 <= n_q <= header.n_codebooks or not 1 <= array.shape[1] <= most:
            raise ValueError(
                f"{name}: expected shape [1..{header.n_codebooks}, 1..{most or 1} frames], "
                f"found {list(array.shape)}"
            )
        if header.normalize and not _is_level(scale):
            raise ValueError(f"scales[{index}]: expected a finite level, found {scale!r}")
        pieces.append(Piece(array, None if scale is None else float(scale), True))
    return pieces


def codes_of(pieces: Iterable[Piece], length: int, program: Program, torch: bool) -> Codes:
    """The pieces of a recording of `length` samples per channel as users hold them; `torch`: as
    torch tensors."""
    header = program.header
    segments: list[list[CodeArray]] = []
    scales: list[float] = []
    for piece in pieces:
        if piece.start:
            segments.append([])
            if piece.scale is not None:
                scales.append(piece.scale)
        segments[-1].append(piece.codes)
    arrays: list[Any] = [np.concatenate(parts, axis=1) for parts in segments]
    if torch:
        arrays = [to_torch(array.astype(np.int64)) for array in arrays]
    levels = scales if header.normalize else None
    return Codes(arrays, levels, length, header.sample_rate, header.name)


def _is_level(scale: object) -> bool:
    return isinstance(scale, (int, float, np.floating)) and bool(0 <= scale <= _MAX_LEVEL)


def is_torch(value: object) -> bool:
    """Whether value is a torch tensor; does not import torch, whose types tell."""
    return type(value).__module__.partition(".")[0] == "torch"


def to_torch(array: Any) -> Any:
    """A torch tensor that shares the array's memory."""
    import torch

    return torch.from_numpy(array)
