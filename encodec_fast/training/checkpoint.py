"""A run's checkpoints: files that are complete under their name, and refused when they do not fit.

    store = CheckpointStore(folder, every=10_000)
    store.save_step(step, {"architecture": {...}, "model": model.state_dict(), ...}, best=True)
    state = store.load("last.pt", expected={...})

A checkpoint is written under a temporary name, brought to the disk and renamed, so that neither a
kill, a power cut nor a full disk costs the one before it. It is read with PyTorch's restricted
unpickler, which builds tensors and plain values and runs nothing.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LAST = "last.pt"
BEST = "best.pt"
ARCHITECTURE = "architecture"

# Exactly these, no subclasses: numpy's float64 is a float, but the restricted unpickler refuses it.
_PLAIN = (bool, int, float, str, bytes, type(None), torch.dtype, torch.Size)
_SHOWN_DIFFERENCES = 5


class CheckpointStore:
    """The checkpoints in the folder of one run.

    folder: an existing folder. every: `save_step` also keeps the checkpoint of each step that
    this divides, 0 for none. Raises ValueError for a negative one.

    What is saved is a dict with string keys of tensors and plain values (bool, int, float, str,
    bytes, None, dicts, lists and tuples of these). Its entry "architecture", a dict of plain
    values, is what `load` compares.
    """

    def __init__(self, folder: str | os.PathLike[str], every: int = 0) -> None:
        if every < 0:
            raise ValueError(f"every: expected a number of steps or 0, found {every}")
        self.folder = Path(folder)
        self._every = every

    def path(self, name: str) -> Path:
        """Where the checkpoint called `name`, a file name, lies; it need not exist."""
        return self.folder / name

    def save(self, name: str, state: Mapping[str, object]) -> Path:
        """Write `state` to the file `name`, which is replaced at the end in one step.

        Returns its path. Raises OSError naming the file where it cannot be written (the one before
        it is intact then), and ValueError for a value that `load` would refuse, naming its place.
        """
        return self._save([name], state)

    def save_step(self, step: int, state: Mapping[str, object], best: bool = False) -> Path:
        """Write `state`, that of `step`, to last.pt; to best.pt if it is the best so far; and to
        step_00012000.pt (say) where `every` divides the step. It is on the disk once.

        last.pt comes last: a run that is killed in between goes on from the one before it, gets to
        the same step and decides again. Returns the path of last.pt; raises as `save` does.
        """
        names = [BEST] if best else []
        if self._every and step > 0 and step % self._every == 0:
            names.append(f"step_{step:08d}.pt")
        return self._save([*names, LAST], state)

    def load(
        self, name: str, expected: Mapping[str, object] | None = None, device: str = "cpu"
    ) -> dict[str, Any]:
        """The state in the file `name`, its tensors on `device`.

        expected: the architecture that the checkpoint must have. Raises FileNotFoundError or
        another OSError where the file cannot be read, and ValueError naming it for one that is
        truncated, damaged or no checkpoint, and for another architecture's, with what differs.
        """
        path = self.path(name)
        state = read_checkpoint(path, device)
        if expected is not None:
            found = state.get(ARCHITECTURE)
            if not isinstance(found, dict):
                raise ValueError(f"{path}: expected a checkpoint that tells its {ARCHITECTURE}")
            check_architecture(path, found, expected)
        return state

    def _save(self, names: list[str], state: Mapping[str, object]) -> Path:
        """All names are given to one file, the last of them at the end."""
        final = self.path(names[-1])
        with _partial(final) as partial:
            _write(partial, dict(state), final)
            for name in names[:-1]:
                with _partial(self.path(name)) as other:
                    _link(partial, other)
                    other.replace(self.path(name))
            partial.replace(final)
        _sync_folder(self.folder)
        return final


def read_checkpoint(path: Path, device: str = "cpu") -> dict[str, Any]:
    """The dict in a file that `CheckpointStore.save` wrote. Raises as `CheckpointStore.load`."""
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                damaged = archive.testzip()  # torch.load does not look at the archive's sums
            file.seek(0)
            state = torch.load(file, map_location=device, weights_only=True)
        except Exception as error:  # a foreign file can fail anywhere in either
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"{path}: not a readable checkpoint ({reason})") from None
    if damaged is not None:
        raise ValueError(f"{path}: the checkpoint is damaged (wrong checksum of {damaged})")
    if not isinstance(state, dict):
        raise ValueError(f"{path}: expected a dict in the checkpoint, found {type(state).__name__}")
    return state


def check_architecture(
    path: Path, found: Mapping[str, object], expected: Mapping[str, object]
) -> None:
    """Raises ValueError, naming `path` and what differs, unless the two are equal; lists and
    tuples of the same values are."""
    ours, theirs = dict(_flat(expected, "")), dict(_flat(found, ""))
    differences = [
        f"{key}: expected {_shown(ours, key)}, found {_shown(theirs, key)}"
        for key in [*ours, *(key for key in theirs if key not in ours)]
        if key not in ours or key not in theirs or ours[key] != theirs[key]
    ]
    if differences:
        more = len(differences) - _SHOWN_DIFFERENCES
        rest = [f"and {more} more"] if more > 0 else []
        listed = "; ".join(differences[:_SHOWN_DIFFERENCES] + rest)
        raise ValueError(f"{path}: a checkpoint of another architecture ({listed})")


def _flat(value: object, key: str) -> Iterator[tuple[str, object]]:
    """The leaves below `value` by dotted keys."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}" if key else str(name))
    else:
        yield key, _as_lists(value)


def _as_lists(value: object) -> object:
    return [_as_lists(item) for item in value] if isinstance(value, list | tuple) else value


def _shown(leaves: dict[str, object], key: str) -> str:
    return repr(leaves[key]) if key in leaves else "nothing"


def _check_loadable(value: object, key: str) -> None:
    """Raises ValueError for what the restricted unpickler would refuse when it is too late."""
    if isinstance(value, Tensor) or type(value) in _PLAIN:
        return
    if isinstance(value, dict) and type(value) in (dict, OrderedDict):
        for name, item in value.items():
            _check_loadable(name, f"{key} (a key)")
            _check_loadable(item, f"{key}.{name}")
    elif isinstance(value, list | tuple) and type(value) in (list, tuple):
        for index, item in enumerate(value):
            _check_loadable(item, f"{key}[{index}]")
    else:
        raise ValueError(f"{key}: expected a tensor or a plain value, found {type(value).__name__}")


class _Sink(io.FileIO):
    """A file that remembers why it could not be written: torch.save hides it."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            raise


def _write(partial: Path, state: dict[str, object], final: Path) -> None:
    """Brings `state` to the disk under a temporary name; errors name the final one."""
    _check_loadable(state, "state")
    sink = None
    try:
        with _Sink(partial, "w") as sink, io.BufferedWriter(sink) as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        cause = sink.error if sink is not None and sink.error is not None else error
        if isinstance(cause, OSError):
            raise OSError(cause.errno, f"cannot save: {cause.strerror}", str(final)) from None
        raise


@contextlib.contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, gone at the end. What a kill leaves is replaced later."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> None:
    """A second name for a file's contents: it costs no time and no room where links exist."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _sync_folder(folder: Path) -> None:
    """Brings the folder's names to the disk, where the platform opens folders."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
