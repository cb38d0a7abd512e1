"""The recordings that an evaluation runs on: a manifest, a folder, or one audio file."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from encodec_fast._native import Audio
from encodec_fast.audio import AudioReader

MANIFEST = "MANIFEST.csv"
_CSV, _JSON_LINES = ".csv", ".jsonl"
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

    data: a manifest, .csv with the columns path, kind and split (only path must be there) or .jsonl
    with an object of these a line; a folder with a manifest called MANIFEST.csv; a folder of audio
    files: their kind is the name of the folder below `data` that they lie in, where that is one of
    KINDS; or one audio file. kind: of recordings without one (default: "unsorted"). split: of the
    rows of a manifest. Raises ValueError where there is nothing, OSError where `data` cannot be
    read.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit: expected at least 1 recording per kind, found {limit}")
    root = Path(data)
    unknown = kind or UNKNOWN
    if (root / MANIFEST).is_file():
        found = _from_manifest(root / MANIFEST, split, unknown)
    elif root.is_dir():
        found = _from_folder(root, unknown)
    elif not root.is_file():
        raise FileNotFoundError(f"data: no folder or file at {root}")
    elif root.suffix.lower() in (_CSV, _JSON_LINES):
        found = _from_manifest(root, split, unknown)
    elif root.suffix.lower() in _SUFFIXES:
        found = [Recording(root, root.name, unknown)]
    else:
        raise ValueError(
            f"data: expected a folder, a manifest ({_CSV}, {_JSON_LINES}) or an audio file, "
            f"found {root}"
        )
    chosen: dict[str, list[Recording]] = {}
    for recording in sorted(found, key=lambda recording: recording.name):
        chosen.setdefault(recording.kind, []).append(recording)
    kinds = sorted(chosen, key=lambda name: (KINDS.index(name) if name in KINDS else 9, name))
    return [recording for name in kinds for recording in chosen[name][:limit]]


def _from_manifest(manifest: Path, split: str, unknown: str) -> list[Recording]:
    rows = _rows(manifest)
    if not rows or "path" not in rows[0]:
        raise ValueError(f"{manifest}: expected rows with a column path, found none")
    splits = {str(row["split"]) for row in rows if row.get("split")}
    if splits:
        rows = [row for row in rows if row.get("split") == split]
        if not rows:
            known = ", ".join(sorted(splits))
            raise ValueError(f"split: {manifest} has no rows of {split!r} (it has {known})")
    found = []
    for row in rows:
        path = row.get("path")
        if not isinstance(path, str) or not path:
            raise ValueError(f"{manifest}: a row without a path")
        found.append(Recording(manifest.parent / path, path, str(row.get("kind") or unknown)))
    return found


def _rows(manifest: Path) -> list[dict[str, Any]]:
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as lines:
            if manifest.suffix.lower() == _JSON_LINES:
                return _objects(lines)
            return list(csv.DictReader(lines, strict=True))
    except (ValueError, csv.Error) as error:  # ValueError: also what is no UTF-8
        raise ValueError(f"{manifest}: no {manifest.suffix} file: {error}") from None


def _objects(lines: Iterable[str]) -> list[dict[str, Any]]:
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number}: expected a JSON object ({error})") from None
        if not isinstance(value, dict):
            raise ValueError(f"line {number}: expected a JSON object, found {line.strip()[:40]}")
        found.append(value)
    return found


def _from_folder(root: Path, unknown: str) -> list[Recording]:
    found = []
    for path in root.rglob("*"):
        # A link to a file that is gone is listed among the skipped ones.
        gone = path.is_symlink() and not path.exists()
        if path.suffix.lower() not in _SUFFIXES or not (path.is_file() or gone):
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
