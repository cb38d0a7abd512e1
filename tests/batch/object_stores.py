"""File systems as clusters have them, on folders of this machine; workers import them from here."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
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


class MeetingStore(LocalFileSystem):
    """One whose files take a while, and the first ones until two processes bring some: so that a
    run is under way on two workers whenever it is looked at."""

    protocol = ("meeting",)

    def put_file(self, path1: str, path2: str, **more: Any) -> None:
        meeting = Path(path2).parents[3] / "meeting"  # beside the output folder
        meeting.mkdir(exist_ok=True)
        (meeting / str(os.getpid())).touch()
        patience = time.monotonic() + 60
        while len(list(meeting.iterdir())) < 2 and time.monotonic() < patience:
            time.sleep(0.05)
        time.sleep(0.3)
        super().put_file(path1, path2, **more)
