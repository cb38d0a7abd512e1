"""The recordings that an evaluation runs on: a manifest, or a folder of audio files."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from encodec_fast._native import Audio
from encodec_fast.audio import AudioReader

MANIFEST = "MANIFEST.csv"
KINDS = ("speech", "music", "sound", "mixed")
UNKNOWN = "unsorted"
_SUFFIXES = {f".{name.lower()}" for name in soundfile.available_formats()} - {".raw"}
_SUFFIXES |= {".aif", ".oga", ".opus"}
# Peak of 16-bit audio's smallest step.
SILENCE = 2.0**-15


class Recording(NamedTuple):
    """An audio file, its name in reports and its kind of content."""

    path: Path
    name: str
    kind: str


class Setting(NamedTuple):
    """The rate in Hz and the channels that a model works at, and its anchors with it."""

    sample_rate: int
    channels: int

    def __str__(self) -> str:
        channels = {1: "mono", 2: "stereo"}.get(self.channels, f"{self.channels} channels")
        return f"{self.sample_rate / 1000:g} kHz {channels}"


def find_recordings(
    data: str | os.PathLike[str],
    split: str = "test",
    limit: int | None = None,
    kind: str | None = None,
) -> list[Recording]:
    """The recordings of `data`, sorted by kind and path, at most `limit` of a kind.

    data: a CSV file with the columns path, kind and split (only path must be there), a folder with
    such a file called MANIFEST.csv, or a folder of audio files: their kind is the name of the
    folder below `data` that they lie in, where that is one of KINDS. kind: of recordings without
    one (default: "unsorted"). split: of the rows of a manifest. Raises ValueError where there is
    nothing, OSError where `data` cannot be read.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit: expected at least 1 recording per kind, found {limit}")
    root = Path(data)
    unknown = kind or UNKNOWN
    if root.is_file():
        found = _from_manifest(root, split, unknown)
    elif (root / MANIFEST).is_file():
        found = _from_manifest(root / MANIFEST, split, unknown)
    elif root.is_dir():
        found = _from_folder(root, unknown)
    else:
        raise FileNotFoundError(f"data: no folder or manifest at {root}")
    chosen: dict[str, list[Recording]] = {}
    for recording in sorted(found, key=lambda recording: recording.name):
        chosen.setdefault(recording.kind, []).append(recording)
    kinds = sorted(chosen, key=lambda name: (KINDS.index(name) if name in KINDS else 9, name))
    return [recording for name in kinds for recording in chosen[name][:limit]]


def _from_manifest(manifest: Path, split: str, unknown: str) -> list[Recording]:
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.DictReader(lines, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{manifest}: no CSV file: {error}") from None
    if not rows or "path" not in rows[0]:
        raise ValueError(f"{manifest}: expected rows with a column path, found none")
    splits = {row["split"] for row in rows if row.get("split")}
    if splits:
        rows = [row for row in rows if row.get("split") == split]
        if not rows:
            known = ", ".join(sorted(splits))
            raise ValueError(f"split: {manifest} has no rows of {split!r} (it has {known})")
    found = []
    for row in rows:
        if not row["path"]:
            raise ValueError(f"{manifest}: a row without a path")
        kind = row.get("kind") or unknown
        found.append(Recording(manifest.parent / row["path"], row["path"], kind))
    return found


def _from_folder(root: Path, unknown: str) -> list[Recording]:
    found = []
    for path in root.rglob("*"):
        if path.suffix.lower() not in _SUFFIXES or not path.is_file():
            continue
        name = path.relative_to(root).as_posix()
        top = name.partition("/")[0].lower()
        found.append(Recording(path, name, top if top in KINDS else unknown))
    if not found:
        raise ValueError(f"data: no audio files in {root}")
    return found


def read_recording(path: Path, setting: Setting, seconds: float) -> Audio:
    """The first `seconds` of a file, float32 [channels, samples] as the setting says.

    Raises OSError and ValueError for what cannot be evaluated: no audio file, no samples, samples
    that are not finite, silence.
    """
    length = round(seconds * setting.sample_rate)
    blocks: list[Audio] = []
    with AudioReader(path, setting.sample_rate, setting.channels) as reader:
        for block in reader.blocks():
            blocks.append(block)
            length -= block.shape[1]
            if length <= 0:
                break
    wave = np.concatenate(blocks, axis=1)
    wave = wave[:, : wave.shape[1] + min(length, 0)]
    if np.abs(wave).max() <= SILENCE:
        raise ValueError(f"{path}: silent")
    return np.ascontiguousarray(wave)
