"""Where training recordings come from: folders, manifests, tar archives."""

from __future__ import annotations

import json
import math
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from encodec_fast.sources import (
    MANIFESTS,
    SUFFIXES,
    archive_members,
    files_below,
    manifest_rows,
)

MANIFEST = "MANIFEST.csv"  # lists the recordings of the folder that it lies in
UNKNOWN = "unknown"  # the kind of recordings that nobody gave one


@dataclass(frozen=True)
class SourceSettings:
    """One source of recordings.

    path: a folder, read through its MANIFEST.csv where it has one, else searched to any depth for
    audio files, to which no filters apply; a manifest (.csv, or .jsonl with one object a line)
    whose `path` is relative to its folder; or an uncompressed WebDataset archive (.tar). The last
    part of it may be a pattern (`shard-*.tar`).
    kind: of the recordings whose manifest or .json gives them none ("speech", "music", ...).
    where: columns that must equal the value or one of them; exclude: columns that must contain
    none of the values, in any case of letters; at_least: columns whose number must not be lower.
    Columns are those of the manifest, or of the .json beside an archive's recording. `kind` is the
    recording's kind; `seconds` and `peak` spare reading its file to find its length and level.
    """

    path: str
    kind: str | None = None
    where: dict[str, str | tuple[str, ...]] = field(default_factory=dict)
    exclude: dict[str, str | tuple[str, ...]] = field(default_factory=dict)
    at_least: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path: expected a folder, a manifest or an archive, found ''")
        for name, filters in (("where", self.where), ("exclude", self.exclude)):
            for column, values in filters.items():
                if not values or not all(_values(values)):
                    raise ValueError(f"{name}.{column}: expected values, found {values!r}")


class Recording(NamedTuple):
    """One recording: a file, or `size` bytes of an archive from byte `start` on.

    seconds and peak (largest absolute sample, full scale 1) are None where nothing states them.
    """

    name: str
    path: str
    kind: str
    start: int | None = None
    size: int = 0
    seconds: float | None = None
    peak: float | None = None


class _Row(NamedTuple):
    """What a source lists: a file or a part of one, and the columns beside it, which `stated` in an
    error says the place of."""

    path: str
    stated: str
    columns: dict[str, Any]
    start: int | None = None
    size: int = 0

    @property
    def name(self) -> str:
        return self.path if self.start is None else f"{self.path}:{self.columns['path']}"


def placed(sources: Iterable[SourceSettings], audio: str) -> tuple[SourceSettings, ...]:
    """Sources with paths that begin in the folder `audio` where they are not absolute. Raises
    ValueError without one for a source that is this folder itself."""
    found = tuple(replace(source, path=str(Path(audio, source.path))) for source in sources)
    if not audio and any(source.path == os.curdir for source in found):
        raise ValueError("audio: expected the folder of the recordings (audio=FOLDER), found none")
    return found


def unfiltered(source: SourceSettings) -> bool:
    """Whether the filters of a source do not apply, because it is a folder without a manifest."""
    return bool(source.where or source.exclude or source.at_least) and _plain(Path(source.path))


def _plain(path: Path) -> bool:
    return path.is_dir() and not (path / MANIFEST).is_file()


def find_recordings(source: SourceSettings) -> list[Recording]:
    """The recordings of a source, in an order that only depends on their names.

    Files are not opened: whether they are audio is seen when they are read. Raises ValueError for a
    source without recordings, a manifest or archive that cannot be read as one, and a filter whose
    column none of its rows has; OSError where it does not exist.
    """
    rows = [row for path in _expand(Path(source.path)) for row in _list(path)]
    if not rows:
        raise ValueError(f"{source.path}: expected recordings, found none")
    kept = rows if _plain(Path(source.path)) else _filter(rows, source)
    chosen = [_recording(row, source) for row in kept]
    if not chosen:
        raise ValueError(f"{source.path}: the filters leave none of {len(rows)} recordings")
    return chosen


def _expand(path: Path) -> list[Path]:
    if path.exists():
        return [path]
    found = sorted(path.parent.glob(path.name)) if re.search(r"[*?\[]", path.name) else []
    if not found:
        raise FileNotFoundError(f"{path}: expected a folder, a manifest or an archive, found none")
    return found


def _list(path: Path) -> Iterator[_Row]:
    if path.is_dir():
        if not _plain(path):
            return _manifest(path / MANIFEST)
        files = sorted(file for file in files_below(path) if file.suffix.lower() in SUFFIXES)
        return (_Row(str(file), str(file), {}) for file in files if _is_recording(file))
    suffix = path.suffix.lower()
    if suffix in MANIFESTS:
        return _manifest(path)
    if suffix == ".tar":
        return _archive(path)
    if suffix in SUFFIXES:
        return iter([_Row(str(path), str(path), {})])
    raise ValueError(f"{path}: expected a folder, .csv, .jsonl, .tar or an audio file")


def _is_recording(file: Path) -> bool:
    """Also a link to a file that is gone: it is listed among the skipped ones."""
    return file.is_file() or (file.is_symlink() and not file.exists())


def _manifest(path: Path) -> Iterator[_Row]:
    with path.open(newline="", encoding="utf-8-sig") as lines:
        for number, columns in manifest_rows(lines, path.suffix.lower(), str(path)):
            yield _Row(str(path.parent / columns["path"]), f"{path}: line {number}", columns)


def _archive(path: Path) -> Iterator[_Row]:
    """The audio members of a WebDataset archive; a .json of the same key gives their columns."""
    found: list[tuple[str, tarfile.TarInfo]] = []
    columns: dict[str, dict[str, Any]] = {}
    with path.open("rb") as stream:
        for archive, key, member in archive_members(stream, str(path)):
            suffix = PurePosixPath(member.name).suffix.lower()
            if suffix in SUFFIXES:
                found.append((key, member))
            elif suffix == ".json":
                columns[key] = _member_columns(archive, member, path)
    for key, member in found:
        row = {**columns.get(key, {}), "path": member.name}
        yield _Row(str(path), f"{path}: {member.name}", row, member.offset_data, member.size)


def _member_columns(
    archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path
) -> dict[str, Any]:
    stream = archive.extractfile(member)
    assert stream is not None  # a regular file
    try:
        columns = json.load(stream)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {member.name}: expected JSON ({error})") from None
    return columns if isinstance(columns, dict) else {}


def _filter(rows: list[_Row], source: SourceSettings) -> Iterator[_Row]:
    known = dict.fromkeys(name for row in rows for name in row.columns)
    for column in (*source.where, *source.exclude, *source.at_least):
        if column not in known:
            found = ", ".join(known) or "none"
            raise ValueError(f"{source.path}: no column {column!r} to filter by, found {found}")
    for row in rows:
        if (
            all(_text(row, name) in _values(values) for name, values in source.where.items())
            and not any(
                value.casefold() in _text(row, name).casefold()
                for name, values in source.exclude.items()
                for value in _values(values)
            )
            and all((_number(row, name) or 0) >= least for name, least in source.at_least.items())
        ):
            yield row


def _values(values: str | tuple[str, ...]) -> tuple[str, ...]:
    return (values,) if isinstance(values, str) else values


def _text(row: _Row, column: str) -> str:
    value = row.columns.get(column)
    return "" if value is None else str(value)


def _recording(row: _Row, source: SourceSettings) -> Recording:
    kind = str(row.columns.get("kind") or source.kind or UNKNOWN)
    seconds, peak = _number(row, "seconds"), _number(row, "peak")
    for column, number in (("seconds", seconds), ("peak", peak)):
        if number is not None and not 0 <= number < math.inf:
            raise ValueError(
                f"{row.stated}: column {column!r}: expected a finite number of at least 0, "
                f"found {row.columns[column]!r}"
            )
    return Recording(row.name, row.path, kind, row.start, row.size, seconds, peak)


def _number(row: _Row, column: str) -> float | None:
    value = row.columns.get(column)
    if value is None or value == "":
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):  # OverflowError: a very long integer
        raise ValueError(
            f"{row.stated}: column {column!r}: expected a number, found {str(value)[:40]!r}"
        ) from None
