"""Files to read, here or wherever fsspec reaches: a path with `://` is a URL of its own kind."""

from __future__ import annotations

import contextlib
import glob
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from encodec_fast.sources import files_below


class Found(NamedTuple):
    """A file: its path or URL, its place below the folder it was looked for in, its bytes (0 where
    nobody tells)."""

    path: str
    below: str
    size: int


def is_remote(path: str) -> bool:
    """Whether a path is a URL, of a file system that fsspec reads."""
    return "://" in path


def beside(path: str, name: str) -> str:
    """The path of what the file at `path` calls `name`: relative to its folder unless absolute."""
    if is_remote(name):
        return name
    if is_remote(path):
        root, folder = path.split("://", 1)
        return f"{root}://{posixpath.join(posixpath.dirname(folder), name)}"
    return os.path.join(os.path.dirname(path), name)  # noqa: PTH118, PTH120 - Path costs 10x here


def exists(path: str) -> bool:
    """Whether there is a file or folder at `path`."""
    if is_remote(path):
        system, inside = _remote(path)
        return bool(system.exists(inside))
    return Path(path).exists()


def is_folder(path: str) -> bool:
    """Whether there is a folder at `path`."""
    if is_remote(path):
        system, inside = _remote(path)
        return bool(system.isdir(inside))
    return Path(path).is_dir()


def size_of(path: str) -> int:
    """The bytes of a file, 0 where nobody tells: whether it can be read is seen when it is."""
    try:
        if is_remote(path):
            system, inside = _remote(path)
            return int(system.size(inside) or 0)
        return os.stat(path).st_size  # noqa: PTH116 - of a million files
    except OSError:
        return 0


def files_in(folder: str) -> Iterator[Found]:
    """All files below a folder but hidden ones. Raises OSError for one that cannot be read."""
    if is_remote(folder):
        system, inside = _remote(folder)
        found = system.find(inside, detail=True)
        for path, about in found.items():
            below = posixpath.relpath(path, inside.rstrip("/") or "/")
            if not _is_hidden(below):
                yield Found(system.unstrip_protocol(path), below, int(about.get("size") or 0))
        return
    for file in files_below(Path(folder)):
        try:
            size = file.stat().st_size
        except OSError:  # a broken link is a failure of its own, when its turn comes
            size = 0
        yield Found(str(file), file.relative_to(folder).as_posix(), size)


def matches(pattern: str) -> Iterator[Found]:
    """What a pattern (`*`, `?`, `[...]`, `**` for folders of any depth) matches, below the folder
    before its first wildcard, but hidden files; in the order of names."""
    parts = re.split(r"[\\/]" if os.name == "nt" else "/", pattern)
    fixed = next(n for n, part in enumerate(parts) if glob.has_magic(part))
    if is_remote(pattern):
        system, inside = _remote(pattern)
        root = "/".join(system.unstrip_protocol(inside).split("/")[: -len(parts) + fixed])
        for path in sorted(system.glob(inside)):
            full = system.unstrip_protocol(path)
            if not _is_hidden(below := posixpath.relpath(full, root)):
                yield Found(full, below, 0)
        return
    folder = Path("/".join(parts[:fixed]) or ("/" if fixed else "."))
    for match in sorted(folder.glob("/".join(parts[fixed:]))):
        if not _is_hidden(below := match.relative_to(folder).as_posix()):
            yield Found(str(match), below, 0)


def is_pattern(path: str) -> bool:
    """Whether a path has wildcards."""
    return glob.has_magic(path)


@contextlib.contextmanager
def open_binary(path: str) -> Iterator[IO[bytes]]:
    """A file to read. Raises OSError where it cannot be opened."""
    if not is_remote(path):
        with Path(path).open("rb") as stream:
            yield stream
        return
    system, inside = _remote(path)
    with system.open(inside, "rb") as stream:
        yield stream


def _is_hidden(below: str) -> bool:
    return any(part.startswith(".") for part in below.split("/"))


def _remote(path: str) -> tuple[Any, str]:
    """The file system of a URL, and the path on it."""
    try:
        import fsspec
    except ImportError as error:
        raise ValueError(
            f"{path}: reading URLs needs `pip install 'encodec-fast[tokenize]'` ({error})"
        ) from None
    try:
        system, inside = fsspec.core.url_to_fs(path)
    except ImportError as error:  # of the one file system
        raise ValueError(f"{path}: {error}") from None
    return system, inside
