"""Tokens from files of any format, and from the folder that a run of `tokenize` has written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from encodec_fast.batch.formats import FORMATS, format_of
from encodec_fast.batch.tokens import Tokens
from encodec_fast.codec import Codec


def load_tokens(path: str | os.PathLike[str], codec: Codec | None = None) -> Iterator[Tokens]:
    """The items of a file of tokens, or of a folder of them, in order and one after the other.

    A folder that `tokenize` wrote is read by its manifest, or the manifests of those jobs of an
    array that have finished; in any other one all files below it with a known suffix are read,
    sorted by path. Codes are uint16 [n_q, frames]; `codec.decode(tokens.to_codes())` is the audio.
    codec: the model of .ecdc files, where it is not installed.

    Raises FileNotFoundError and ValueError at once for what is no such file or folder, and while
    iterating ValueError naming the file that is damaged, OSError for one that cannot be read.
    """
    place = Path(path)
    if place.is_dir():
        files = _files(place)
    elif not place.exists():
        raise FileNotFoundError(f"tokens: no file or folder at {place}")
    else:
        files = [place]
        if format_of(place) is None:
            known = ", ".join(format.suffix for format in FORMATS.values())
            raise ValueError(f"{place}: expected a file of tokens ({known})")
    return _items(files, codec)


def _items(files: list[Path], codec: Codec | None) -> Iterator[Tokens]:
    for file in files:
        if (format := format_of(file)) is not None:
            yield from format.read(file, codec)


def _files(folder: Path) -> list[Path]:
    manifests = sorted([*folder.glob("manifest.json"), *folder.glob("manifest-*-of-*.json")])
    if manifests:
        return [folder / file for manifest in manifests for file in _manifest_files(manifest)]
    found = sorted(path for path in folder.rglob("*") if format_of(path) and path.is_file())
    # What begins with a dot is no output, or not yet.
    found = [p for p in found if not any(n.startswith(".") for n in p.relative_to(folder).parts)]
    if not found:
        raise ValueError(f"{folder}: expected files of tokens, found none")
    return found


def _manifest_files(manifest: Path) -> Iterator[str]:
    try:
        about = json.loads(manifest.read_bytes())
        files = [entry["file"] for entry in about["files"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{manifest}: expected a manifest of tokenize ({error!r})") from None
    for file in files:
        if not _is_inside(file) or format_of(file) is None:
            raise ValueError(f"{manifest}: expected files of tokens in its folder, found {file!r}")
        yield file


def _is_inside(file: Any) -> bool:
    if not isinstance(file, str):
        return False
    path = PurePosixPath(file)
    return not path.is_absolute() and ".." not in path.parts
