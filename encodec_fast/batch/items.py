"""Items: the recordings of a data set, listed but not opened, and how one is opened."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from encodec_fast.batch.filesystem import is_remote, open_binary
from encodec_fast.sources import Window

# Bytes of a second of usual files, for the order of work and the time that is left alone.
_BYTES_PER_SECOND = {
    ".mp3": 16_000,
    ".ogg": 16_000,
    ".oga": 16_000,
    ".opus": 12_000,
    ".flac": 60_000,
}
_PCM_BYTES_PER_SECOND = 96_000
_UNKNOWN_SECONDS = 10.0
# Names and contents of an item's extras: they are held in memory beside the codes.
MAX_EXTRA_BYTES = 1 << 26


class Location(Protocol):
    """Where the audio of an item lies; can be pickled."""

    def open(self) -> AbstractContextManager[Path | IO[bytes]]:
        """What AudioReader reads. Raises OSError or ValueError."""


@dataclass(frozen=True)
class FileLocation:
    """A whole file, by path or URL."""

    path: str

    @contextlib.contextmanager
    def open(self) -> Iterator[Path | IO[bytes]]:
        if not is_remote(self.path):
            path = Path(self.path)
            if path.exists() and not path.is_file():  # reading a pipe might never end
                raise OSError(f"{path}: expected a regular file, found a pipe or a device")
            yield path
            return
        with open_binary(self.path) as stream:
            yield stream


@dataclass(frozen=True)
class PartLocation:
    """`size` bytes of a file from `start` on: the member of an archive."""

    path: str
    start: int
    size: int

    @contextlib.contextmanager
    def open(self) -> Iterator[Path | IO[bytes]]:
        with open_binary(self.path) as stream:
            yield io.BufferedReader(Window(stream, self.start, self.size))

    def read(self) -> bytes:
        """All of it. Raises OSError for a file that ends before."""
        with open_binary(self.path) as stream:
            stream.seek(self.start)
            data = stream.read(self.size)
        if len(data) < self.size:
            raise OSError(f"{self.path}: expected {self.size} bytes at {self.start}, found fewer")
        return data


@dataclass(frozen=True)
class NoLocation:
    """Where nothing can be read, as was seen when the data set was listed."""

    reason: str

    def open(self) -> AbstractContextManager[Path | IO[bytes]]:
        raise ValueError(self.reason)


@dataclass(frozen=True)
class Item:
    """A recording of a data set.

    key: unique among the items of a run, parts separated by `/`; source: the place as errors and
    Tokens name it; size: of its file in bytes, 0 where it is not known; extra: the other
    members of a WebDataset sample by extension.
    """

    key: str
    location: Location
    source: str
    size: int = 0
    extra: tuple[tuple[str, PartLocation], ...] = ()

    @property
    def seconds(self) -> float:
        """A guess at the length, from the file's size and kind."""
        if not self.size:
            return _UNKNOWN_SECONDS
        suffix = PurePosixPath(self.source).suffix.lower()
        return self.size / _BYTES_PER_SECOND.get(suffix, _PCM_BYTES_PER_SECOND)


def read_extra(item: Item) -> dict[str, bytes]:
    """The other members of the item's sample. Raises ValueError for more than MAX_EXTRA_BYTES of
    them, before any is read, and OSError where they cannot be read."""
    size = sum(len(extension.encode()) + part.size for extension, part in item.extra)
    if size > MAX_EXTRA_BYTES:
        raise ValueError(
            f"{item.source}: expected at most {MAX_EXTRA_BYTES} bytes beside the audio, "
            f"found {size}"
        )
    return {extension: part.read() for extension, part in item.extra}


def shown(text: str | os.PathLike[str]) -> str:
    """A path as text that can be written anywhere: bytes that are no UTF-8 as escapes."""
    return os.fspath(text).encode("utf-8", "backslashreplace").decode()


def key_of(*parts: str) -> str:
    """The key of what lies at `parts`, a path that leads nowhere else. Raises ValueError for a path
    without a name."""
    names = "/".join(parts).replace("\\" if os.name == "nt" else "/", "/").split("/")
    key = "/".join(name for name in names if name not in ("", ".", ".."))
    if not key:
        raise ValueError(f"{'/'.join(parts)!r}: expected a path with a name")
    return shown(key)
