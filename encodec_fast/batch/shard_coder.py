"""What a worker of a cluster does: shards of items to files in the output folder."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from encodec_fast.batch.cluster_output import record_name
from encodec_fast.batch.folder import Folder
from encodec_fast.batch.formats import FORMATS
from encodec_fast.batch.items import Item
from encodec_fast.batch.manifest import (
    FAILED,
    MANIFEST,
    identity_of,
    read_failures,
    read_manifest,
    write_manifest,
)
from encodec_fast.batch.names import shard_name
from encodec_fast.batch.run import run_locally
from encodec_fast.batch.settings import Settings
from encodec_fast.codec import Codec
from encodec_fast.store import ENTROPY_SUFFIX

# Of a record that waits until the files that it names are there in the place of others.
_NEXT = ".next"


class ShardCoder:
    """Codes shards with one program, each as a run of its own on this machine, whose files then
    get their names in the output folder.

    state: the folder below the output folder that has a record of each shard that is done; program:
    the bytes of the program file; caller: the caller's working folder, from which relative paths of
    sources lead on; entropy_model: the bytes of its file, where the settings need one. Takes and
    gives rows of Ray Data.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Folder,
        state: str,
        program: bytes,
        caller: str,
        entropy_model: bytes | None = None,
    ) -> None:
        # A worker is a process of its own. On other machines there may be no such folder.
        with contextlib.suppress(OSError):
            os.chdir(caller)
        self._settings = settings
        self._format = FORMATS[settings.format]
        self._folder = folder
        self._state = state
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "program.safetensors"
            path.write_bytes(program)
            if entropy_model is not None:
                path.with_suffix(ENTROPY_SUFFIX).write_bytes(entropy_model)
            self._codec = Codec.load(path, device=settings.device)
            if entropy_model is not None:
                _ = self._codec.entropy_model  # read while the file is there

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """row: "shard", its number; "items", pickled; "retry", whether failures are tried again.

        Gives "shard"; "record", the shard's files and failures as JSON; "coded", whether this call
        coded it; "error", why the output folder could not be written, or "". A worker may die at
        any moment and another one be given the row: a shard that has its record and whose files fit
        their checksums is done.
        """
        shard = int(row["shard"])
        coded = False
        try:
            record = self._recorded(shard)
            if record is None or (row["retry"] and record["failed"]):
                # What the driver pickled, of this run.
                record = self._code(shard, pickle.loads(row["items"]), record)
                coded = True
        except OSError as error:  # not of an item, which does not end the run
            return {"shard": shard, "record": "", "coded": False, "error": str(error)}
        return {"shard": shard, "record": json.dumps(record), "coded": coded, "error": ""}

    def _recorded(self, shard: int) -> dict[str, Any] | None:
        """The record of a shard whose files are all as they were written: where a worker has died
        while it replaced them, the one that they fit."""
        name = record_name(self._state, shard)
        for data in (self._folder.read(name), self._folder.read(name + _NEXT)):
            record: dict[str, Any] = json.loads(data or b"{}")
            if record and all(
                self._folder.sha256(f["file"]) == f["sha256"] for f in record["files"]
            ):
                return record
        return None

    def _code(self, shard: int, items: list[Item], before: dict[str, Any] | None) -> dict[str, Any]:
        """Codes the items, or the failures of the record `before`, and publishes their files, and
        then the record of it."""
        settings = replace(self._settings, shard=(0, 1))
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "out"
            if before is not None:
                self._restore(out, settings, items, before)
            run_locally(items, out, self._codec, settings, retry_failed=before is not None)
            made = read_manifest(out / MANIFEST.format(""))["files"]
            entries = []
            for entry in made:
                name = entry["file"]
                if not self._format.per_item:
                    name = shard_name(self._settings.job, shard, self._format.suffix)
                entries.append({k: entry[k] for k in entry if k != "shard"} | {"file": name})
            failed = [asdict(failure) for failure in read_failures(out / FAILED.format(""))]
            record = {"shard": shard, "files": entries, "failed": failed}
            name, data = record_name(self._state, shard), json.dumps(record).encode()
            if before is not None:
                self._folder.write(name + _NEXT, data)
            for entry, published in zip(made, entries, strict=True):
                self._folder.publish(out / entry["file"], published["file"])
        self._folder.write(name, data)
        return record

    def _restore(
        self, out: Path, settings: Settings, items: list[Item], record: dict[str, Any]
    ) -> None:
        """Makes `out` what the run that coded the shard had left there."""
        out.mkdir()
        files = []
        for entry in record["files"]:
            name = entry["file"]
            if not self._format.per_item:
                name = shard_name(settings.job, 0, self._format.suffix)
            self._folder.fetch(entry["file"], out / name)
            files.append({**entry, "file": name})
        with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
            write_manifest(
                out / MANIFEST.format(""),
                out / FAILED.format(""),
                settings,
                identity_of(settings, self._codec, items),
                self._codec.sample_rate,
                [{"shard": 0, "files": files, "failed": record["failed"]}],
                Path(scratch),
            )
