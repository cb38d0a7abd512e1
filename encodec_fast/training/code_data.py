"""Codes of the training recordings for the entropy model: coded once, read as random sequences."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from encodec_fast.codec import Codec
from encodec_fast.training.data import build_cache, select

Int16 = NDArray[np.int16]
Codes = NDArray[np.uint16]
HELD_OUT = 16  # one in so many recordings is kept for validation
ENDED = -1  # in place of the codes after the end of a recording
FROM_START = 0.25  # share of the sequences that begin where their recording does


class TrainingCodes(NamedTuple):
    """Codes uint16 [K, frames] per recording: for training, by kind of sound, as recorded and
    varied; and for validation."""

    plain: dict[str, list[Codes]]
    varied: dict[str, list[Codes]]
    held_out: list[Codes]


def load_codes(audio: Path, folder: Path, codec: Codec, copies: int, seed: int) -> TrainingCodes:
    """The codes of the training recordings under `audio`, made where `folder`, the run's, lacks
    them: as they are, and `copies` times changed at random (see `vary`).

    Recordings cut from the same original are held out together, and never varied or mixed. Raises
    ValueError for fewer than 0 copies, fewer than two originals and a folder whose codes are other
    recordings', and whatever reading the recordings raises.
    """
    if copies < 0:
        raise ValueError(f"copies: expected at least 0, found {copies}")
    selected = list(select(audio))
    held = held_out([path for path, _ in selected])
    kinds = [kind for (_, kind), out in zip(selected, held, strict=True) if not out]
    if not kinds:
        raise ValueError(f"{audio}: expected at least two originals, one is for validation")
    cache = folder / f"train_{codec.sample_rate}.s16"
    if not cache.exists():
        build_cache(audio, cache, codec.sample_rate)
    recordings = read_cache(cache)
    if len(recordings) != len(held):
        raise ValueError(f"{cache}: expected {len(held)} recordings, found {len(recordings)}")
    usable = [recording for recording, out in zip(recordings, held, strict=True) if not out]
    stored = _stored(folder / "codes_0.npz", codec, recordings, len(recordings))
    plain = [codes for codes, out in zip(stored, held, strict=True) if not out]
    varied: list[Codes] = []
    for number in range(1, copies + 1):
        random = np.random.default_rng([seed, number])
        waves = (vary(recording, usable, codec.hop, random) for recording in usable)
        varied += _stored(folder / f"codes_{number}.npz", codec, waves, len(usable))
    return TrainingCodes(
        _by_kind(plain, kinds),
        _by_kind(varied, kinds * copies),
        [codes for codes, out in zip(stored, held, strict=True) if out],
    )


def _by_kind(codes: list[Codes], kinds: list[str]) -> dict[str, list[Codes]]:
    found: dict[str, list[Codes]] = {kind: [] for kind in dict.fromkeys(kinds)}
    for part, kind in zip(codes, kinds, strict=True):
        found[kind].append(part)
    return found


def held_out(paths: Sequence[Path]) -> list[bool]:
    """Which recordings are for validation: every 16th original, with all that was cut from it
    (file names that differ in a number at the end). Of fewer originals it is the last."""
    originals = [re.sub(r"_?\d*$", "", path.stem) for path in paths]
    order = {name: place for place, name in enumerate(dict.fromkeys(originals))}
    chosen = min(HELD_OUT // 2, len(order) - 1)
    return [order[name] % HELD_OUT == chosen for name in originals]


def read_cache(cache: Path) -> list[Int16]:
    """The recordings int16 [samples] that `build_cache` decoded."""
    samples = np.fromfile(cache, dtype=np.int16)
    files = json.loads(Path(f"{cache}.json").read_text())["files"]
    return [samples[file["start"] : file["start"] + file["length"]] for file in files]


def vary(recording: Int16, others: list[Int16], hop: int, random: np.random.Generator) -> Int16:
    """A recording changed so that its codes become other ones: half of them play up to 10 % faster
    or slower, one in four is mixed with one of `others`; all start up to a hop later and get
    another level (-12 to +6 dB, as far as nothing clips) and sign. int16 [n] to int16 [m]."""
    wave = recording.astype(np.float32)
    if random.random() < 0.5:
        wave = soxr.resample(wave, 1.0, random.uniform(0.9, 1.1))
    if random.random() < 0.25:
        other = others[random.integers(len(others))].astype(np.float32)
        wave = wave + random.uniform(0.2, 1) * np.resize(other, len(wave)).astype(np.float32)
    wave = wave[random.integers(min(hop, len(wave))) :]
    gain = min(10 ** (random.uniform(-12, 6) / 20), 32767 / max(float(np.abs(wave).max()), 1.0))
    varied: Int16 = np.rint(wave * (gain * random.choice([-1, 1]))).astype(np.int16)
    return varied


def _stored(path: Path, codec: Codec, waves: Iterable[Int16], count: int) -> list[Codes]:
    """The codes of `count` recordings in `path`; of `waves`, then stored there, where it is new."""
    if not path.exists():
        coded = [
            codec.encode(wave[None].astype(np.float32) / np.float32(32768), bandwidth=None).codes[0]
            for wave in waves
        ]
        lengths = [codes.shape[1] for codes in coded]
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, codes=np.concatenate(coded, axis=1), lengths=lengths)
        partial.replace(path)
    with np.load(path) as stored:
        codes, lengths = stored["codes"], stored["lengths"]
    if len(lengths) != count or codes.shape[0] != codec.n_codebooks:
        raise ValueError(
            f"{path}: expected {count} recordings with {codec.n_codebooks} codebooks, "
            f"found {len(lengths)} with {codes.shape[0]}"
        )
    return np.split(codes, np.cumsum(lengths)[:-1], axis=1)


class CodeSequences:
    """Random sequences of `length` frames out of coded recordings, by kind of sound.

    Each kind is drawn equally often, its recordings in proportion to their length.
    """

    def __init__(self, codes: dict[str, list[Codes]], length: int, seed: int) -> None:
        self._kinds = [[part for part in parts if part.shape[1]] for parts in codes.values()]
        if not self._kinds or not all(self._kinds):
            raise ValueError("codes: expected at least one recording with frames of each kind")
        self._length = length
        self._random = np.random.default_rng(seed)
        frames = [np.array([part.shape[1] for part in parts], float) for parts in self._kinds]
        self._weights = [counts / counts.sum() for counts in frames]

    def _sequence(self) -> NDArray[np.int64]:
        kind = self._random.integers(len(self._kinds))
        parts = self._kinds[kind]
        codes = parts[self._random.choice(len(parts), p=self._weights[kind])]
        start = 0
        if self._random.random() >= FROM_START:
            start = int(self._random.integers(max(1, codes.shape[1] - self._length + 1)))
        found = codes[:, start : start + self._length].astype(np.int64)
        missing = self._length - found.shape[1]
        return np.pad(found, ((0, 0), (0, missing)), constant_values=ENDED)

    def batch(self, size: int) -> Tensor:
        """`size` sequences, int64 [size, K, length], ENDED after the end of a recording."""
        return torch.from_numpy(np.stack([self._sequence() for _ in range(size)]))
