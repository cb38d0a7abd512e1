"""File systems as clusters have them, on folders of this machine; workers import them from here."""

from __future__ import annotations

import errno
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem


class ObjectStore(LocalFileSystem):
    """One without renames, as S3 is: a move is a copy and a removal."""

    protocol = ("objects",)

    def mv(self, path1: str, path2: str, recursive: bool = False, **more: Any) -> None:
        AbstractFileSystem.mv(self, path1, path2, recursive=recursive, **more)


class FullStore(LocalFileSystem):
    """One that has no room for files of tokens."""

    protocol = ("full",)

    def put_file(self, path1: str, path2: str, **more: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", path2)
