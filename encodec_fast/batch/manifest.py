"""What lies beside the output of a run: its identity while it goes on, its manifest at the end."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from encodec_fast.batch.coding import Failure
from encodec_fast.batch.items import Item
from encodec_fast.batch.settings import Settings
from encodec_fast.codec import Codec
from encodec_fast.output import OutputFile

MANIFEST = "manifest{}.json"
FAILED = "failed{}.jsonl"
VERSION = 1
STATE = ".tokenize"
IDENTITY = "identity.json"


@dataclass(frozen=True)
class Report:
    """What a run, or a job of an array, has made in all.

    items: recordings that were coded, hours: of audio in them; failures: the others; seconds: that
    this call took; resumed: items that an earlier call had coded.
    """

    items: int
    hours: float
    failures: tuple[Failure, ...]
    seconds: float = 0.0
    resumed: int = 0


def identity_of(settings: Settings, codec: Codec, items: Sequence[Item]) -> dict[str, Any]:
    """What all that is in an output folder has in common. items: of all jobs, sorted by key."""
    n_q = codec.n_q(settings.bandwidth)
    bandwidths = codec.program.header.bandwidths
    keys = hashlib.sha256()
    for item in items:
        keys.update(item.key.encode() + b"\0")
    entropy = {}
    # Only where there is any: folders of versions that knew none go on.
    if settings.entropy != "none" and (model := codec.entropy_model) is not None:
        entropy = {"entropy": settings.entropy, "entropy_hash": model.hash}
    return {
        "version": VERSION,
        "model": codec.name,
        "model_hash": codec.program.hash,
        "bandwidth": next(kbps for kbps, count in bandwidths.items() if count == n_q),
        "format": settings.format,
        "shard_size": settings.shard_size,
        "jobs": settings.shard[1],
        "total": len(items),
        "keys": keys.hexdigest()[:16],
        **entropy,
    }


def check_identity(out: Path, identity: dict[str, Any]) -> None:
    """Raises ValueError for a folder that holds, or is about to hold, the output of something else;
    OSError for what is no folder."""
    if not out.exists():
        return
    names = [name for name in os.listdir(out) if not name.startswith(".")]  # noqa: PTH208 - a list
    known = sorted(out.glob(MANIFEST.format("*"))) + sorted(out.glob(f"{STATE}/*/{IDENTITY}"))
    if names and not known:
        raise ValueError(
            f"output {out}: expected a new or empty folder, or one of an earlier run; "
            f"found others' files ({sorted(names)[0]})"
        )
    for path in known:
        with contextlib.suppress(FileNotFoundError):  # of a job that has just finished
            check_document(str(out), str(path), path.read_bytes(), identity)


def check_document(out: str, path: str, data: bytes, identity: dict[str, Any]) -> None:
    """Raises ValueError where `data`, the manifest or identity at `path` in the output folder
    `out`, is of another run."""
    try:
        found = json.loads(data)
        found = found.get("identity", found)
        names = dict.fromkeys([*identity, *found])
        differing = [name for name in names if found.get(name) != identity.get(name)]
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: not a manifest of tokenize: {error}") from None
    if differing:
        told = "; ".join(
            f"{name}: expected {identity.get(name, 'none')}, found {found.get(name, 'none')}"
            for name in differing
        )
        raise ValueError(f"output {out}: is of another run ({told})")


def write_identity(state: Path, identity: dict[str, Any]) -> None:
    """Claims an output folder for a run. Raises OSError where it cannot be written."""
    with OutputFile(state / IDENTITY, overwrite=True) as output:
        output.path.write_text(json.dumps(identity), encoding="utf-8")


def write_manifest(
    path: Path,
    failed: Path,
    settings: Settings,
    identity: dict[str, Any],
    sample_rate: int,
    shards: Iterable[dict[str, Any]],
    scratch: Path,
) -> None:
    """Writes the list of failures and the manifest, which makes the job a finished one.

    shards: records of a shard's files and failures, taken one by one; scratch: a folder beside
    `path` for what is not whole yet. Raises OSError.
    """
    from encodec_fast import __version__  # of the package that is built on this module

    about = {
        "package": __version__,
        "identity": identity,
        "model": identity["model"],
        "model_hash": identity["model_hash"],
        # Without what may differ between equal runs.
        "settings": {k: v for k, v in asdict(settings).items() if k not in ("threads", "device")},
        "sample_rate": sample_rate,
    }
    counts = {"items": 0, "samples": 0, "failed": 0}
    whole, listed = scratch / "manifest", scratch / "failed"
    with whole.open("w", encoding="utf-8") as file, listed.open("w", encoding="utf-8") as lines:
        file.write(json.dumps(about, indent=1).removesuffix("\n}") + ',\n "files": [')
        separator = "\n"
        for shard in shards:
            for entry in shard["files"]:
                text = json.dumps({**entry, "shard": shard["shard"]})
                file.write(f"{separator}  {text}")
                separator = ",\n"
                counts["items"] += entry["items"]
                counts["samples"] += entry["samples"]
            for failure in shard["failed"]:
                lines.write(json.dumps(failure) + "\n")
                counts["failed"] += 1
        hours = counts["samples"] / sample_rate / 3600
        rest = ", ".join(f'"{name}": {count}' for name, count in counts.items())
        file.write(f'\n ],\n {rest}, "hours": {hours:.6f}\n}}\n')
    listed.replace(failed)
    whole.replace(path)


def read_manifest(path: Path) -> dict[str, Any]:
    """What write_manifest wrote. Raises ValueError for anything else."""
    try:
        manifest = json.loads(path.read_bytes())
        expected = {"identity", "files", "items", "samples", "hours"}
        if not isinstance(manifest, dict) or not expected <= manifest.keys():
            raise ValueError("keys are missing")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a manifest of tokenize: {error}") from None
    return manifest


def check_files(out: str, manifest: dict[str, Any], size_of: Callable[[str], int | None]) -> None:
    """Raises ValueError where files that a manifest of the output folder `out` names are missing or
    of another size. size_of: bytes of a file below the folder, None where there is none."""
    differing = [
        (entry["file"], entry["bytes"], size)
        for entry in manifest["files"]
        if (size := size_of(entry["file"])) != entry["bytes"]
    ]
    if differing:
        name, expected, size = differing[0]
        found = "none" if size is None else f"{size} bytes"
        raise ValueError(
            f"output {out}: finished, but {len(differing)} of its {len(manifest['files'])} files "
            f"are missing or changed: expected {name} of {expected} bytes, found {found} (put them "
            "back, or tokenise into a new folder)"
        )


def read_failures(path: Path) -> tuple[Failure, ...]:
    """The failures that write_manifest listed. Raises ValueError for what is no such list."""
    try:
        with path.open(encoding="utf-8") as lines:
            return tuple(Failure(**json.loads(line)) for line in lines)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: not a list of failures: {error}") from None
