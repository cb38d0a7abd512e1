"""Where programs (exported models) are found: bundled, or in the user's models folder."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

SUFFIX = ".safetensors"
ENTROPY_SUFFIX = ".entropy.safetensors"
_DATA = Path(__file__).parent / "data"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class ModelNotFoundError(ValueError):
    """No program of that name is bundled or in the models folder."""


class StoredProgram(NamedTuple):
    """A program file by name; `origin` is "bundled" or "user"."""

    name: str
    path: Path
    origin: str


def models_dir() -> Path:
    """The folder of imported models: $ENCODEC_FAST_MODELS, else the platform's place for user data.

    It need not exist.
    """
    chosen = os.environ.get("ENCODEC_FAST_MODELS")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "encodec_fast" / "models"


def sample_path() -> Path:
    """The bundled sample recording."""
    return _DATA / "sample.flac"


def check_name(name: str) -> str:
    """Returns `name` if a program may be stored under it, else raises ValueError.

    Names come out of files that others wrote: one that leads out of the models folder is no name.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name[:100]!r} is not a model name: expected letters, digits, '.', '_' and '-'"
        )
    return name


def find_model(name: str) -> Path:
    """The program of the model called `name`: the bundled one, else the one in the models folder.

    Never takes `name` for a path. Raises ModelNotFoundError, which says how to get the model.
    """
    file = check_name(name) + SUFFIX
    for folder in (_DATA, models_dir()):
        if (folder / file).is_file():
            return folder / file
    known = ", ".join(program.name for program in list_programs()) or "none"
    raise ModelNotFoundError(
        f"model {name} not found (available: {known}): import it once with `encodec-fast models "
        f"import CHECKPOINT` (a file, a folder, or encodec_24khz or encodec_48khz to download it; "
        f"needs encodec-fast[torch]), which puts {file} into {models_dir()}"
    )


def find_program(name_or_path: str | os.PathLike[str]) -> Path:
    """The program file for a model's name or for a path.

    A string with a folder separator or the ending `.safetensors` is a path, any other one a name.
    Raises ModelNotFoundError.
    """
    if isinstance(name_or_path, str) and not _looks_like_path(name_or_path):
        return find_model(name_or_path)
    path = Path(name_or_path)
    if not path.is_file():
        raise ModelNotFoundError(f"no program file at {path}")
    return path


def entropy_path(program: Path) -> Path:
    """Where the entropy model of a program file is, if it has one: beside it."""
    return program.with_name(program.stem + ENTROPY_SUFFIX)


def list_programs() -> list[StoredProgram]:
    """All programs by name; a bundled one hides an imported one of the same name."""
    found: dict[str, StoredProgram] = {}
    for origin, folder in (("bundled", _DATA), ("user", models_dir())):
        for path in folder.glob(f"*{SUFFIX}"):
            if path.name.endswith(ENTROPY_SUFFIX):
                continue
            if path.is_file() and _NAME.fullmatch(path.stem):
                found.setdefault(path.stem, StoredProgram(path.stem, path, origin))
    return sorted(found.values())


def _looks_like_path(text: str) -> bool:
    separators = {"/", os.sep, os.altsep or os.sep}
    return text.endswith(SUFFIX) or any(separator in text for separator in separators)
