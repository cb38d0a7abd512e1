"""Training recordings: decoded once into one int16 file, read as random crops."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

KINDS = {"speech": 0.55, "music": 0.25, "sound": 0.2}
QUIETEST = 2e-3  # root mean square: below it a crop is silence, whose errors in dB mean nothing
SHARE_ALIKE = ("GPL", "CC-BY-SA")


def select(audio: Path) -> Iterator[tuple[Path, str]]:
    """The training files under `audio` and their kinds, after its MANIFEST.csv.

    Recordings under share-alike licences are left out, so that the weights carry no such terms.
    """
    with (audio / "MANIFEST.csv").open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            share_alike = any(name in row["licence"] for name in SHARE_ALIKE)
            if row["split"] == "train" and row["kind"] in KINDS and not share_alike:
                yield audio / row["path"], row["kind"]


def decode(path: Path, sample_rate: int) -> NDArray[np.int16]:
    """A recording as int16 mono at `sample_rate`: mean over channels, then resampled."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono: NDArray[np.float32] = samples.mean(axis=1)
    if rate != sample_rate:
        mono = soxr.resample(mono, rate, sample_rate)
    clipped: NDArray[np.int16] = np.clip(np.rint(mono * 32767), -32767, 32767).astype(np.int16)
    return clipped


def build_cache(audio: Path, cache: Path, sample_rate: int) -> None:
    """Decode all training files into `cache` (int16 samples) and `cache`.json (where they are)."""
    entries, position = [], 0
    partial = cache.with_suffix(".partial")
    with partial.open("wb") as target:
        for path, kind in select(audio):
            samples = decode(path, sample_rate)
            entries.append({"kind": kind, "start": position, "length": len(samples)})
            position += len(samples)
            samples.tofile(target)
    if not entries:
        raise ValueError(f"{audio / 'MANIFEST.csv'} lists no training recordings")
    Path(f"{cache}.json").write_text(json.dumps({"sample_rate": sample_rate, "files": entries}))
    partial.replace(cache)


class Crops:
    """Random crops of the cached recordings, balanced over kinds.

    Files are drawn in proportion to their length. One crop in five is the sum of two of different
    kinds. The gain is random, -10 to +6 dB, as far as nothing clips.
    """

    def __init__(self, cache: Path, length: int, seed: int) -> None:
        index = json.loads(Path(f"{cache}.json").read_text())
        self._samples = np.fromfile(cache, dtype=np.int16)
        self._length = length
        self._random = np.random.default_rng(seed)
        self._files: dict[str, list[tuple[int, int]]] = {kind: [] for kind in KINDS}
        for entry in index["files"]:
            if entry["length"] > length:
                self._files[entry["kind"]].append((entry["start"], entry["length"]))
        empty = [kind for kind, files in self._files.items() if not files]
        if empty:
            raise ValueError(f"no recording longer than {length} samples of kind: {empty}")
        self._weights = {
            kind: np.array([size for _, size in files]) / sum(size for _, size in files)
            for kind, files in self._files.items()
        }

    def _crop(self, kind: str) -> NDArray[np.float32]:
        while True:
            files = self._files[kind]
            start, size = files[self._random.choice(len(files), p=self._weights[kind])]
            at = start + int(self._random.integers(size - self._length))
            crop = self._samples[at : at + self._length].astype(np.float32) / np.float32(32768)
            if float(np.square(crop).mean()) > QUIETEST**2:
                return crop

    def _item(self) -> NDArray[np.float32]:
        kinds = list(KINDS)
        kind = str(self._random.choice(kinds, p=list(KINDS.values())))
        crop = self._crop(kind)
        if self._random.random() < 0.2:
            other = str(self._random.choice([name for name in kinds if name != kind]))
            crop = crop + self._crop(other)
        gain = 10 ** (self._random.uniform(-10, 6) / 20)
        return (crop * min(gain, 0.99 / float(np.abs(crop).max()))).astype(np.float32)

    def batch(self, size: int) -> Tensor:
        """`size` crops, float32 [size, 1, length]."""
        return torch.from_numpy(np.stack([self._item() for _ in range(size)])[:, None])
