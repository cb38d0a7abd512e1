"""The file that a command writes: complete under its name, or not there at all."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

Target = str | os.PathLike[str] | IO[bytes]


def target_name(target: Target, argument: str = "target") -> str:
    """How error messages call `target`, the value of `argument`.

    Raises ValueError for what is neither a path nor a binary stream.
    """
    if isinstance(target, (str, os.PathLike)):
        return os.fspath(target)
    stream = hasattr(target, "read") or hasattr(target, "write")
    if not stream or isinstance(target, io.TextIOBase):
        found = type(target).__name__
        raise ValueError(f"{argument}: expected a path or a binary stream, found {found}")
    return str(getattr(target, "name", "<stream>"))


@contextlib.contextmanager
def naming(target: str) -> Iterator[None]:
    """Adds the name of a file to errors that come without one (disk full)."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, target) from None


class OutputFile:
    """A target that appears complete or not at all.

    Write to the temporary file `path`. Leaving the `with` block normally (or `commit`) moves it to
    the target, leaving it by an exception (or `discard`) removes it. The temporary file lies beside
    the target, so that the move is one atomic step. Streams, pipes and character devices cannot be
    replaced: they receive a copy at the end. A file that is replaced keeps its permissions.

    Raises FileExistsError for an existing file without `overwrite`, and OSError naming the target
    where it cannot be written, ValueError for a target that is neither a path nor a binary stream.
    """

    def __init__(self, target: Target, overwrite: bool = False) -> None:
        self.name = target_name(target)
        self._overwrite = overwrite
        self._stream: IO[bytes] | Path | None = None
        self._final = Path()
        if not isinstance(target, (str, os.PathLike)):
            self._stream = target
        elif (given := Path(target)).is_fifo() or given.is_char_device():
            self._stream = given
        else:
            # A symbolic link stays one: the file that it points to is the one replaced.
            self._final = Path(os.path.realpath(given))
            self._check_target()
        self.path = self._create()

    @property
    def folder(self) -> Path:
        """The folder of the temporary file, which has room for the output."""
        return self.path.parent

    def commit(self) -> None:
        """Moves the temporary file to the target."""
        try:
            if self._stream is None:
                self._check_target()
                self._move()
            else:
                with naming(self.name):
                    self._copy_to(self._stream)
        finally:
            self.discard()

    def discard(self) -> None:
        """Removes the temporary file, if it is still there."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> OutputFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.discard()

    def _move(self) -> None:
        if not self._overwrite:
            try:
                # Unlike a rename, this never replaces what another process has written meanwhile.
                os.link(self.path, self._final)
                return
            except FileExistsError:
                raise self._exists_already() from None
            except (OSError, AttributeError):
                pass  # a file system or platform without hard links
        try:
            if self._final.exists():
                shutil.copymode(self._final, self.path)
            self.path.replace(self._final)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.name) from None

    def _exists_already(self) -> FileExistsError:
        return FileExistsError(
            f"output {self.name} exists already (replace it with -f or overwrite=True)"
        )

    def _copy_to(self, stream: IO[bytes] | Path) -> None:
        with self.path.open("rb") as data, contextlib.ExitStack() as stack:
            if isinstance(stream, Path):
                stream = stack.enter_context(stream.open("wb"))
            shutil.copyfileobj(data, stream)
            stream.flush()

    def _check_target(self) -> None:
        if self._final.is_dir():
            raise IsADirectoryError(f"output {self.name} is a folder")
        if self._final.exists():
            if not self._final.is_file():
                raise OSError(f"output {self.name} is not a regular file")
            if not self._overwrite:
                raise self._exists_already()
        elif not self._final.parent.is_dir():
            raise FileNotFoundError(f"output {self.name}: its folder does not exist")

    def _create(self) -> Path:
        if self._stream is None:
            folder = self._final.parent
        else:
            import tempfile  # only here: it costs 15 ms of start-up time

            folder = Path(tempfile.gettempdir())
        path = folder / f".encodec_fast-{os.getpid()}-{os.urandom(6).hex()}.tmp"
        try:
            path.touch(exist_ok=False)  # unlike tempfile's, with the permissions of the umask
        except OSError as error:
            raise type(error)(error.errno, error.strerror, self.name) from None
        return path
