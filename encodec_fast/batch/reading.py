"""Tokens from files of any format, and from the folder that a run of `tokenize` has written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from encodec_fast.batch.filesystem import (
    exists,
    files_in,
    is_folder,
    is_remote,
    matches,
    open_binary,
)
from encodec_fast.batch.formats import FORMATS, format_of
from encodec_fast.batch.tokens import Tokens
from encodec_fast.codec import Codec


def load_tokens(path: str | os.PathLike[str], codec: Codec | None = None) -> Iterator[Tokens]:
    """The items of a file of tokens, or of a folder of them, in order and one after the other.

    path: or a URL for fsspec. A folder that `tokenize` wrote is read by its manifest, or the
    manifests of those jobs of an array that have finished; in any other one all files below it with
    a known suffix are read, sorted by path. Codes are uint16 [n_q, frames];
    `codec.decode(tokens.to_codes())` is the audio. codec: the model of .ecdc files, where it is not
    installed.

    Raises FileNotFoundError and ValueError at once for what is no such file or folder, and while
    iterating ValueError naming the file that is damaged, OSError for one that cannot be read.
    """
    place = os.fspath(path)
    if is_folder(place):
        return _items(_files(place), codec)
    if not exists(place):
        raise FileNotFoundError(f"tokens: no file or folder at {place}")
    if format_of(place) is None:
        known = ", ".join(format.suffix for format in FORMATS.values())
        raise ValueError(f"{place}: expected a file of tokens ({known})")
    return _items([place], codec)


def _items(files: list[str], codec: Codec | None) -> Iterator[Tokens]:
    for file in files:
        if (format := format_of(file)) is not None:
            yield from format.read(file, codec)


def _files(folder: str) -> list[str]:
    inside = f"{folder.rstrip('/')}/"
    if manifests := _manifests(folder):
        return [inside + file for manifest in manifests for file in _named_files(manifest)]
    found = sorted(file.path for file in files_in(folder) if format_of(file.path))
    if not found:
        raise ValueError(f"{folder}: expected files of tokens, found none")
    return found


def _manifests(folder: str) -> list[str]:
    if is_remote(folder):
        return [found.path for found in matches(f"{folder.rstrip('/')}/manifest*.json")]
    return sorted(str(path) for path in Path(folder).glob("manifest*.json"))


def _named_files(manifest: str) -> Iterator[str]:
    """The files that a manifest names, relative to its folder."""
    try:
        with open_binary(manifest) as stream:
            files = [entry["file"] for entry in json.loads(stream.read())["files"]]
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
