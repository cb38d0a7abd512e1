"""The output folder of a cluster: on any file system of fsspec, written by many machines."""

from __future__ import annotations

import hashlib
import os
import posixpath
import uuid
from pathlib import Path
from typing import Any

from encodec_fast.batch.filesystem import is_pattern, is_remote


class Folder:
    """Files by their names below a folder, which appear whole or not at all. Can be pickled.

    url: a path, which all machines must see, or a URL. staging: the name of the folder below it
    that takes files on their way to their names. Raises ValueError for a URL that fsspec cannot
    serve.
    """

    def __init__(self, url: str, staging: str) -> None:
        self.url = url
        self._staging = staging
        if is_remote(url) and is_pattern(url):  # copying on object stores would expand it
            raise ValueError(f"output {url}: expected a URL without wildcards")
        try:
            import fsspec

            place = url if is_remote(url) else os.path.abspath(url)  # noqa: PTH100 - a string
            self._system, self._root = fsspec.core.url_to_fs(place)
        except (ImportError, ValueError) as error:  # fsspec's, or that of its one file system
            raise ValueError(f"output {url}: {error}") from None

    def names(self, folder: str = "") -> list[str]:
        """What lies in a folder, sorted; nothing where there is none."""
        self._system.invalidate_cache()  # others write, too
        try:
            found = self._system.ls(self._path(folder), detail=False)
        except FileNotFoundError:
            return []
        return sorted({posixpath.basename(path.rstrip("/")) for path in found})

    def sizes(self) -> dict[str, int]:
        """The bytes of all files below the folder, by name."""
        self._system.invalidate_cache()
        found = self._system.find(self._root, detail=True)
        start = len(self._root.rstrip("/")) + 1
        return {path[start:]: about["size"] for path, about in found.items()}

    def read(self, name: str) -> bytes | None:
        """A small file, None where there is none."""
        try:
            data: bytes = self._system.cat_file(self._path(name))
        except FileNotFoundError:
            return None
        return data

    def sha256(self, name: str) -> str | None:
        """The checksum of a file, None where there is none."""
        digest = hashlib.sha256()
        try:
            with self._system.open(self._path(name), "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except FileNotFoundError:
            return None
        return digest.hexdigest()

    def fetch(self, name: str, target: Path) -> None:
        """Copies a file to this machine. Raises OSError."""
        target.parent.mkdir(parents=True, exist_ok=True)
        self._system.get_file(self._path(name), str(target))

    def publish(self, source: Path, name: str) -> None:
        """Puts a local file there; one that there was is replaced. Raises OSError."""
        self._put(name, lambda part: self._system.put_file(str(source), part))

    def write(self, name: str, data: bytes) -> None:
        """Puts bytes there. Raises OSError."""
        self._put(name, lambda part: self._system.pipe_file(part, data))

    def remove(self, name: str) -> None:
        """Removes a file, or a folder with all that is in it, if it is there."""
        path = self._path(name)
        self._system.invalidate_cache()
        if self._system.exists(path):
            self._system.rm(path, recursive=True)

    def _put(self, name: str, write: Any) -> None:
        # A name of its own: the writer of another machine may have been given up, not dead.
        part = self._path(f"{self._staging}/part-{uuid.uuid4().hex}")
        target = self._path(name)
        for path in (part, target):
            self._system.makedirs(posixpath.dirname(path), exist_ok=True)
        write(part)
        self._system.mv(part, target)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}".rstrip("/")
