"""Where recordings are listed: folders, manifests, tar archives, and the parts of an archive."""

from __future__ import annotations

import csv
import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

_FORMATS = "wav flac ogg oga opus mp3 aif aiff aifc au snd caf w64 rf64 voc"
SUFFIXES = frozenset(f".{name}" for name in _FORMATS.split())
MANIFESTS = (".csv", ".jsonl")


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder but those whose name, or a folder's below it, begins with a dot:
    those are other programs' notes, not recordings. Raises OSError for a folder it cannot read."""

    def refuse(error: OSError) -> None:
        raise error

    for below, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(below, name) for name in names if not name.startswith("."))


def manifest_rows(lines: IO[str], suffix: str, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a manifest called `name`, .csv or .jsonl (one object a line), with their line's
    number; each has a `path`. Raises ValueError naming it for one that cannot be read as such."""
    try:
        for number, columns in (_csv_rows if suffix == ".csv" else _json_rows)(lines):
            if not isinstance(columns.get("path"), str) or not columns["path"]:
                raise ValueError(
                    f"line {number}: expected a column 'path', found {', '.join(columns)}"
                )
            yield number, columns
    except (ValueError, csv.Error) as error:  # also what is no UTF-8
        raise ValueError(f"{name}: {error}") from None


def _csv_rows(lines: IO[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(lines)
    for columns in reader:
        if None in columns:
            raise ValueError(f"line {reader.line_num}: expected {len(columns) - 1} columns")
        yield reader.line_num, columns


def _json_rows(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            columns = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number}: expected a JSON object ({error})") from None
        if not isinstance(columns, dict):
            raise ValueError(f"line {number}: expected a JSON object, found {line.strip()[:40]!r}")
        yield number, columns


def archive_members(
    stream: IO[bytes], name: str
) -> Iterator[tuple[tarfile.TarFile, str, tarfile.TarInfo]]:
    """The regular members of an uncompressed WebDataset archive called `name`: the archive, the
    sample that the member belongs to (its name up to the first dot of the last part), the member.

    Raises ValueError naming the archive for one that cannot be read, or goes on after its end.
    """
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                if member.isreg() and not member.issparse():
                    place = PurePosixPath(member.name)
                    yield archive, str(place.parent / place.name.partition(".")[0]), member
            _check_end(archive)
    except tarfile.TarError as error:
        raise ValueError(f"{name}: expected an uncompressed tar archive: {error}") from None
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _check_end(archive: tarfile.TarFile) -> None:
    """Raises ValueError for what follows the last member: tarfile takes a damaged header for the
    end, and all that comes after it would be lost."""
    stream = archive.fileobj
    assert stream is not None  # it is open
    stream.seek(archive.offset)
    while block := stream.read(1 << 20):
        if block.strip(b"\0"):
            raise ValueError(
                f"expected zeros from byte {archive.offset} to the end of the archive, "
                "found a damaged header or a second archive"
            )


class Window(io.RawIOBase):
    """`size` bytes of an open file from `start` on, as a file of their own."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._start + self._at)
        found = self._file.read(min(len(buffer), max(0, self._size - self._at)))
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)
