"""Where programs (exported models) are found: bundled, or in the user's models folder."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

SUFFIX = ".safetensors"
# Of a program's entropy model, beside it.
ENTROPY_SUFFIX = ".entropy" + SUFFIX
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
    if not _is_name(name):
        raise ValueError(
            f"{name[:100]!r} is not a model name: expected letters, digits, '.', '_' and '-'"
            ", not ending in '.entropy'"
        )
    return name


def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and not f"{name}{SUFFIX}".endswith(ENTROPY_SUFFIX)


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


def find_entropy(name_or_path: str | os.PathLike[str]) -> Path:
    """The entropy model of the model called `name_or_path`, or of the program at that path.

    It is found by name as find_model finds a program, and beside a program that is given by its
    path; that of a bundled program also in the models folder. Raises ModelNotFoundError.
    """
    if isinstance(name_or_path, str) and not _looks_like_path(name_or_path):
        file = check_name(name_or_path) + ENTROPY_SUFFIX
        places = [folder / file for folder in (_DATA, models_dir())]
    else:
        places = [Path(name_or_path).with_suffix(ENTROPY_SUFFIX)]
        if places[0].parent == _DATA:  # as find_model returns it
            places.append(models_dir() / places[0].name)
    for path in places:
        if path.is_file():
            return path
    looked = " or ".join(str(path) for path in places)
    raise ModelNotFoundError(f"{name_or_path} has no entropy model (expected at {looked})")


def list_programs() -> list[StoredProgram]:
    """All programs by name; a bundled one hides an imported one of the same name."""
    found: dict[str, StoredProgram] = {}
    for origin, folder in (("bundled", _DATA), ("user", models_dir())):
        for path in folder.glob(f"*{SUFFIX}"):
            if path.is_file() and _is_name(path.stem):
                found.setdefault(path.stem, StoredProgram(path.stem, path, origin))
    return sorted(found.values())


def _looks_like_path(text: str) -> bool:
    separators = {"/", os.sep, os.altsep or os.sep}
    return text.endswith(SUFFIX) or any(separator in text for separator in separators)
