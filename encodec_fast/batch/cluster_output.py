"""The output of a job that a cluster runs: claimed, resumed and finished in a folder of fsspec."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from encodec_fast.batch.folder import Folder
from encodec_fast.batch.items import Item
from encodec_fast.batch.manifest import (
    FAILED,
    IDENTITY,
    MANIFEST,
    STATE,
    Report,
    check_document,
    check_files,
    identity_of,
    read_failures,
    read_manifest,
    write_manifest,
)
from encodec_fast.batch.settings import Settings
from encodec_fast.codec import Codec


class ClusterOutput:
    """What the job has made, and which shards its items belong to: those of the local engine.

    items: of all jobs, sorted by key. state: the folder with a record of each shard that is done.
    """

    def __init__(self, out: str, settings: Settings, codec: Codec, items: Sequence[Item]) -> None:
        index, count = settings.shard
        self.items = items[index::count]
        self.state = f"{STATE}/ray{settings.job}"
        self.folder = Folder(out, self.state)
        self._settings = settings
        self._codec = codec
        self._identity = identity_of(settings, codec, items)
        self._manifest = MANIFEST.format(settings.job)
        self._failed = FAILED.format(settings.job)

    def shards(self) -> list[list[Item]]:
        """The items of each shard."""
        size = self._settings.shard_size
        return [list(self.items[at : at + size]) for at in range(0, len(self.items), size)]

    def finished(self) -> Report | None:
        """What the job has made, where it has finished. Raises ValueError for a folder of another
        run, and where files are missing from it."""
        folder = self.folder
        names = [name for name in folder.names() if not name.startswith(".")]
        known = fnmatch.filter(names, MANIFEST.format("*"))
        known += [f"{STATE}/{job}/{IDENTITY}" for job in folder.names(STATE)]
        found = {name: data for name in known if (data := folder.read(name)) is not None}
        if names and not found:
            raise ValueError(
                f"output {folder.url}: expected a new or empty folder, or one of an earlier run; "
                f"found others' files ({names[0]})"
            )
        for name, data in found.items():
            check_document(folder.url, f"{folder.url}/{name}", data, self._identity)
        if self._manifest not in found:
            return None
        with self._fetched() as (path, _):
            check_files(folder.url, read_manifest(path), folder.sizes().get)
        return self._report()

    def begin(self) -> None:
        """Claims the folder. What a finished run has made becomes the state of one that goes on."""
        folder = self.folder
        folder.write(f"{self.state}/{IDENTITY}", json.dumps(self._identity).encode())
        if folder.read(self._manifest) is None:
            return
        with self._fetched() as (manifest, failed):
            entries, failures = read_manifest(manifest)["files"], read_failures(failed)
        size = self._settings.shard_size
        records: list[dict[str, Any]] = [
            {"shard": shard, "files": [], "failed": []} for shard in range(len(self.shards()))
        ]
        for entry in entries:
            shard = entry.pop("shard")
            records[shard]["files"].append(entry)
        places = {item.key: place for place, item in enumerate(self.items)}
        for failure in failures:
            records[places[failure.key] // size]["failed"].append(asdict(failure))
        for record in records:
            folder.write(record_name(self.state, record["shard"]), json.dumps(record).encode())
        folder.remove(self._manifest)

    def finish(self, records: Iterable[dict[str, Any]]) -> Report:
        """Writes the list of failures and the manifest of the records of all shards, in order."""
        with tempfile.TemporaryDirectory() as scratch:
            manifest, failed = Path(scratch) / self._manifest, Path(scratch) / self._failed
            write_manifest(
                manifest,
                failed,
                self._settings,
                self._identity,
                self._codec.sample_rate,
                records,
                Path(scratch),
            )
            self.folder.publish(failed, self._failed)
            self.folder.publish(manifest, self._manifest)
        self.folder.remove(self.state)
        if not self.folder.names(STATE):  # another job of the array may have its state there
            self.folder.remove(STATE)
        return self._report()

    def _report(self) -> Report:
        with self._fetched() as (path, failed):
            manifest = read_manifest(path)
            return Report(manifest["items"], manifest["hours"], read_failures(failed))

    @contextlib.contextmanager
    def _fetched(self) -> Iterator[tuple[Path, Path]]:
        """Copies of the manifest and of the list of failures."""
        with tempfile.TemporaryDirectory() as scratch:
            paths = Path(scratch) / self._manifest, Path(scratch) / self._failed
            for path in paths:
                path.write_bytes(self.folder.read(path.name) or b"")
            yield paths


def record_name(state: str, shard: int) -> str:
    """The file with the record of a shard that is done."""
    return f"{state}/shard-{shard:05d}.json"
