"""Recordings in memory, as users give them: checks, and conversion to the model's rate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from encodec_fast import _native
from encodec_fast._native import Audio
from encodec_fast.codes import is_torch
from encodec_fast.program import Header


def as_waveform(name: str, wav: Any, header: Header, sample_rate: int | None = None) -> Audio:
    """The argument `name`, numpy or torch, as contiguous float32 [channels, samples >= 1] at the
    model's rate; `sample_rate` (Hz): its own, None for the model's. Raises ValueError for another
    shape or dtype, no samples, and samples that are not finite."""
    if is_torch(wav):
        wav = wav.detach().cpu()
        wav = (wav.float() if wav.is_floating_point() else wav).numpy()  # bfloat16 too
    audio = _native.as_audio(name, wav, (header.channels, None))
    if audio.shape[1] == 0:
        raise ValueError(f"{name}: expected at least one sample, found none")
    if sample_rate is not None and not isinstance(sample_rate, (int, np.integer)):
        raise ValueError(f"sample_rate: expected an integer, found {sample_rate!r}")
    if sample_rate is not None and sample_rate != header.sample_rate:
        from encodec_fast.audio import convert_audio  # only here: start-up time

        audio = convert_audio(audio, sample_rate, header.sample_rate, header.channels)
        if audio.shape[1] == 0:
            raise ValueError(f"{name}: too short to be resampled to {header.sample_rate} Hz")
    return audio


def listed(name: str, values: Any) -> list[Any]:
    """The argument `name`, several of something. Raises ValueError for one of it, and for what is
    no list."""
    single = isinstance(values, (str, bytes, bytearray, memoryview, dict))
    if single or not isinstance(values, Iterable):
        raise ValueError(f"{name}: expected a list, found {type(values).__name__}")
    return list(values)
