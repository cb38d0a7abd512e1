"""The items of a run, from folders, patterns, files, manifests, archives and tables."""

from __future__ import annotations

import io
import os
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from encodec_fast.batch.filesystem import (
    beside,
    exists,
    files_in,
    is_folder,
    is_pattern,
    matches,
    open_binary,
    size_of,
)
from encodec_fast.batch.items import FileLocation, Item, NoLocation, PartLocation, key_of, shown
from encodec_fast.batch.rows import (
    is_saved_dataset,
    list_dataset,
    list_parquet,
    list_saved_dataset,
)
from encodec_fast.sources import MANIFESTS, SUFFIXES, archive_members, manifest_rows

LISTS = (".txt", ".lst")
AUDIO_COLUMN = "audio"
Sources = Any  # a path, a datasets.Dataset, or a sequence of them


def list_items(sources: Sources, audio_column: str = AUDIO_COLUMN) -> list[Item]:
    """The recordings of `sources`, sorted by key; audio files are not opened.

    A source is a folder, searched to any depth for audio files (or, where it has none, for parquet
    and tar files); a folder that `save_to_disk` of datasets wrote; an audio file; a manifest (.csv,
    or .jsonl with one object a line, whose `path` is relative to its folder, and `key` names the
    item), or a list (.txt) with a path a line; a WebDataset archive (.tar); a parquet file with a
    column `audio_column`; a pattern of such paths; a URL of one for fsspec; or a datasets.Dataset.
    Keys are paths relative to the source; of rows, their number. A damaged archive is an item that
    cannot be coded. Raises ValueError for a source without recordings or that cannot be read as
    what it is, and for two items with one key, OSError for a source that cannot be opened.
    """
    if isinstance(sources, (str, os.PathLike, dict)) or hasattr(sources, "num_rows"):
        sources = [sources]
    if not isinstance(sources, Sequence) or not sources:
        raise ValueError(f"sources: expected one or more, found {_told(sources)}")
    items: dict[str, Item] = {}
    for source in sources:
        before = len(items)
        for item in _list(source, audio_column):
            other = items.setdefault(item.key, item)
            if other is not item:
                raise ValueError(
                    f"key {item.key}: expected one recording, found {other.source} and "
                    f"{item.source} (give a manifest with keys, or a folder above both)"
                )
        if len(items) == before:
            raise ValueError(f"{source}: expected recordings, found none")
    return [items[key] for key in sorted(items)]


def _told(sources: Any) -> str:
    return repr(sources) if sources is None or sources == [] else type(sources).__name__


def _list(source: Any, column: str) -> Iterator[Item]:
    if not isinstance(source, (str, os.PathLike)):
        yield from list_dataset(source, column)
        return
    path = os.fspath(source)
    if exists(path):
        name = "" if is_folder(path) else posixpath.basename(path.replace(os.sep, "/"))
        yield from _list_path(path, name, column)
        return
    found = list(matches(path)) if is_pattern(path) else []
    if not found:
        raise FileNotFoundError(f"{path}: expected recordings, found nothing of that name")
    for match in found:
        yield from _list_path(match.path, match.below, column)


def _list_path(path: str, prefix: str, column: str) -> Iterator[Item]:
    """What lies at `path`, with keys that begin with `prefix`."""
    suffix = PurePosixPath(path).suffix.lower()
    if is_folder(path):
        yield from _folder(path, prefix, column)
    elif suffix in MANIFESTS:
        yield from _manifest(path, suffix)
    elif suffix in LISTS:
        yield from _paths(path)
    elif suffix == ".tar":
        yield from _archive(path, prefix)
    elif suffix == ".parquet":
        yield from list_parquet(path, prefix, column)
    elif suffix in SUFFIXES:
        yield Item(key_of(prefix), FileLocation(path), shown(path), size_of(path))
    else:
        raise ValueError(
            f"{path}: expected a folder, .csv, .jsonl, .txt, .tar, .parquet or an audio file"
        )


def _folder(path: str, prefix: str, column: str) -> Iterator[Item]:
    if is_saved_dataset(path):
        yield from list_saved_dataset(path, prefix, column)
        return
    tables = []
    audio = False
    for found in files_in(path):
        suffix = PurePosixPath(found.path).suffix.lower()
        if suffix in SUFFIXES:
            audio = True
            key = key_of(prefix, found.below)
            yield Item(key, FileLocation(found.path), shown(found.path), found.size)
        elif suffix in (".parquet", ".tar"):
            tables.append(found)
    if not audio:
        for found in tables:
            name = f"{prefix}/{found.below}" if prefix else found.below
            yield from _list_path(found.path, name, column)


def _manifest(path: str, suffix: str) -> Iterator[Item]:
    with open_binary(path) as stream:
        lines = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        for number, columns in manifest_rows(lines, suffix, path):
            key = columns.get("key")
            if key is None:
                key = ""
            if type(key) not in (str, int):
                raise ValueError(
                    f"{path}: line {number}: expected a key (text or an integer), found {key!r}"
                )
            yield _named(path, columns["path"], str(key))


def _paths(path: str) -> Iterator[Item]:
    with open_binary(path) as stream:
        try:
            for line in io.TextIOWrapper(stream, encoding="utf-8-sig"):
                if name := line.rstrip("\r\n"):
                    yield _named(path, name, "")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: {error}") from None


def _named(path: str, name: str, key: str) -> Item:
    """The audio file that the manifest at `path` calls `name`."""
    file = beside(path, name)
    return Item(key_of(key or name), FileLocation(file), shown(file), size_of(file))


def _archive(path: str, prefix: str) -> Iterator[Item]:
    """The samples of a WebDataset archive. A sample with several audio members is several items,
    whose keys have the suffixes. One that is damaged is an item itself, which fails, beside the
    samples before the damage; not the last of them, which may lack members."""
    samples: dict[str, dict[str, PartLocation]] = {}
    last = ""
    try:
        with open_binary(path) as stream:
            for _, sample, member in archive_members(stream, path):
                name = PurePosixPath(member.name).name
                if name.startswith("."):
                    continue
                last, extension = sample, name.partition(".")[2]
                members = samples.setdefault(sample, {})
                if extension in members:
                    raise ValueError(f"member {member.name!r}: expected it once, found it twice")
                members[extension] = PartLocation(path, member.offset_data, member.size)
    except ValueError as error:
        samples.pop(last, None)
        reason = str(error).removeprefix(f"{path}: ")
        yield Item(key_of(prefix), NoLocation(f"damaged archive: {reason}"), shown(path))
    for sample, members in samples.items():
        audio = {ext: part for ext, part in members.items() if _is_audio(ext)}
        extra = tuple((shown(ext), p) for ext, p in members.items() if ext and ext not in audio)
        for extension, part in audio.items():
            name = sample if len(audio) == 1 else f"{sample}.{extension}"
            place = shown(f"{path}: {sample}.{extension}")
            yield Item(key_of(prefix, name), part, place, part.size, extra)


def _is_audio(extension: str) -> bool:
    return "." + extension.rpartition(".")[2].lower() in SUFFIXES
