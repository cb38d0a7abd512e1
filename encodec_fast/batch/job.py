"""The output of a run, or of one job of an array: what is done, what is left, and that a kill at
any moment neither loses an item nor doubles one.

Items belong to shards by their place in the job's list. What becomes of an item is a record in its
shard's journal; when all of a shard's are there, its file is made of them, in the order of keys,
and appears at once; the fact goes into the job's own journal, and the shard's is removed. Formats
of a file an item write that first and record it then.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from encodec_fast.batch.coding import Failure
from encodec_fast.batch.formats import FORMATS
from encodec_fast.batch.items import Item
from encodec_fast.batch.journal import Journal, pack_tokens, unpack_tokens
from encodec_fast.batch.manifest import (
    FAILED,
    MANIFEST,
    STATE,
    Report,
    check_files,
    check_identity,
    identity_of,
    read_failures,
    read_manifest,
    write_identity,
    write_manifest,
)
from encodec_fast.batch.names import file_name, shard_name
from encodec_fast.batch.settings import Settings
from encodec_fast.batch.tokens import Tokens
from encodec_fast.codec import Codec
from encodec_fast.output import naming

try:
    import fcntl
except ImportError:  # Windows: nothing keeps a second process of the same job away
    fcntl = None  # type: ignore[assignment]  # a module elsewhere


class Job:
    """The output folder of a job, locked while the `with` block lasts.

    items: of all jobs, sorted by key. Raises ValueError for a folder of another run, OSError where
    it cannot be written, or is being written by another process.
    """

    def __init__(self, out: Path, settings: Settings, codec: Codec, items: Sequence[Item]) -> None:
        self._out, self._settings, self._codec = out, settings, codec
        self._identity = identity_of(settings, codec, items)
        index, count = settings.shard
        self._items = items[index::count]
        self._format = FORMATS[settings.format]
        self._state = out / STATE / f"job{settings.job}"
        self._manifest = out / MANIFEST.format(settings.job)
        self._failed = out / FAILED.format(settings.job)
        self._shards = Journal(self._state / "shards.journal")
        self._places = {item.key: place for place, item in enumerate(self._items)}
        # Of shards that are not done: where the record of each key is in the shard's journal.
        self._records: dict[int, dict[str, int]] = {}
        self._done: dict[int, int] = {}  # of shards: where its record is in the job's journal
        self._lock: IO[bytes]

    # --- opening ----------------------------------------------------------------------------------

    def finished(self) -> Report | None:
        """What the job has made, where it has finished. Raises as the `with` block does, and
        ValueError where files are missing from it."""
        check_identity(self._out, self._identity)
        if not self._manifest.exists():
            return None
        if self._state.exists():  # a kill has left it
            with contextlib.suppress(OSError), _locked(self._state / "lock"):
                self._clear()
        check_files(str(self._out), read_manifest(self._manifest), self._size)
        return self._report()

    def __enter__(self) -> Job:
        self._lock = _locked(self._state / "lock")
        try:
            write_identity(self._state, self._identity)
            try:
                check_identity(self._out, self._identity)  # again: another job may have begun
            except ValueError:
                self._clear()
                raise
            if self._manifest.exists():
                self._restore()
            self._load()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def retry_failed(self) -> None:
        """Forget the failures, whose items are to be coded again."""
        for shard, offset in list(self._done.items()):
            record = self._shards.read(offset).about
            if record["failed"]:
                self._reopen(shard, record)
        for shard, records in self._records.items():
            journal = self._journal(shard)
            for key in [key for key, at in records.items() if "failed" in journal.read(at).about]:
                del records[key]

    def pending(self) -> list[Item]:
        """The items that are not done, in the order of keys."""
        return [
            item
            for place, item in enumerate(self._items)
            if (shard := place // self._settings.shard_size) not in self._done
            and item.key not in self._records.get(shard, {})
        ]

    # --- while it runs ----------------------------------------------------------------------------

    def add(self, outcome: Tokens | Failure) -> Tokens | Failure:
        """Records what became of an item; a failure, too, where its format cannot hold it. Raises
        OSError where that cannot be written."""
        shard = self._places[outcome.key] // self._settings.shard_size
        try:
            record = self._record(outcome)
        except ValueError as error:
            outcome = Failure(outcome.key, outcome.source, f"{self._format.name}: {error}")
            record = self._record(outcome)
        records = self._records.setdefault(shard, {})
        records[outcome.key] = self._journal(shard).append(*record)
        self._close_if_complete(shard)
        return outcome

    def finish(self) -> Report:
        """Writes the manifest and the list of failures, once all items are done."""
        for shard in range(self._shard_count()):
            self._close_if_complete(shard)
        shards = (self._shards.read(self._done[k]).about for k in range(self._shard_count()))
        write_manifest(
            self._manifest,
            self._failed,
            self._settings,
            self._identity,
            self._codec.sample_rate,
            shards,
            self._state,
        )
        self._clear()
        return self._report()

    def _record(self, outcome: Tokens | Failure) -> tuple[Any, ...]:
        """The record of what became of an item, whose file is written, if it is to have its own."""
        if isinstance(outcome, Failure):
            return ({"key": outcome.key, "source": outcome.source, "failed": outcome.reason},)
        if self._format.check is not None:
            self._format.check(outcome, self._settings.shard_size)
            return pack_tokens(outcome)
        name = file_name(outcome.key, self._format.suffix)
        entry = self._publish(name, [outcome])
        return ({**entry, "key": outcome.key, "items": 1, "samples": outcome.audio_length},)

    # --- inside -----------------------------------------------------------------------------------

    def _report(self) -> Report:
        manifest = read_manifest(self._manifest)
        return Report(manifest["items"], manifest["hours"], read_failures(self._failed))

    def _size(self, name: str) -> int | None:
        try:
            return (self._out / name).stat().st_size
        except FileNotFoundError:
            return None

    def _shard_count(self) -> int:
        return -(-len(self._items) // self._settings.shard_size)

    def _journal(self, shard: int) -> Journal:
        return Journal(self._state / f"shard-{shard:05d}.journal")

    def _load(self) -> None:
        """What an earlier run has left."""
        for record in self._shards.records():
            shard = record.about["shard"]
            self._done.pop(shard, None)
            if "open" not in record.about:
                self._done[shard] = record.offset
        for shard in range(self._shard_count()):
            journal = self._journal(shard)
            if shard in self._done:
                journal.remove()
            else:
                found = {record.about["key"]: record.offset for record in journal.records()}
                if found:
                    self._records[shard] = found

    def _close_if_complete(self, shard: int) -> None:
        """Makes a shard's output of its journal, if all its items are there."""
        records = self._records.get(shard, {})
        begin, size = shard * self._settings.shard_size, self._settings.shard_size
        if shard in self._done or len(records) < min(size, len(self._items) - begin):
            return
        keys = [item.key for item in self._items[begin : begin + size]]
        journal = self._journal(shard)
        items = [_summary(journal.read(records[key]).about) for key in keys]
        coded = [about for about in items if "failed" not in about]
        files, refused = coded, ""
        if coded and not self._format.per_item:
            tokens = (self._tokens(journal, records[about["key"]]) for about in coded)
            name = shard_name(self._settings.job, shard, self._format.suffix)
            samples = sum(about["samples"] for about in coded)
            try:
                entry = self._publish(name, tokens)
                files = [{**entry, "items": len(coded), "samples": samples}]
            except ValueError as error:
                # Each item has passed its check. A rerun would end here, too: so the run goes on.
                files, refused = [], f"{self._format.name}: {error}"
        failed = [
            asdict(Failure(about["key"], about["source"], about.get("failed", refused)))
            for about in items
            if refused or "failed" in about
        ]
        done = {"shard": shard, "files": files, "failed": failed}
        self._done[shard] = self._shards.append(done)
        journal.remove()
        self._records.pop(shard, None)

    def _tokens(self, journal: Journal, offset: int) -> Tokens:
        codec = self._codec
        record = journal.read(offset)
        return unpack_tokens(record, codec.sample_rate, codec.name, codec.program.hash)

    def _publish(self, name: str, tokens: Iterable[Tokens]) -> dict[str, Any]:
        """Writes a file of tokens that appears complete or not at all; its entry in the manifest.
        One that an earlier run was killed behind is written again."""
        target, part = self._out / name, self._state / "part"
        with naming(str(target)):
            self._format.write(tokens, part, self._codec)
            size, digest = part.stat().st_size, _sha256(part)
            target.parent.mkdir(parents=True, exist_ok=True)
            part.replace(target)
        return {"file": name, "bytes": size, "sha256": digest}

    def _restore(self) -> None:
        """The state of a finished job, from its manifest, so that failures can be tried again."""
        self._shards.remove()
        shards: dict[int, dict[str, Any]] = {
            k: {"shard": k, "files": [], "failed": []} for k in range(self._shard_count())
        }
        for entry in read_manifest(self._manifest)["files"]:
            shards[entry["shard"]]["files"].append({k: entry[k] for k in entry if k != "shard"})
        for failure in read_failures(self._failed):
            shard = self._places[failure.key] // self._settings.shard_size
            shards[shard]["failed"].append(asdict(failure))
        for record in shards.values():
            self._shards.append(record)
        self._manifest.unlink()
        self._failed.unlink(missing_ok=True)

    def _reopen(self, shard: int, record: dict[str, Any]) -> None:
        """Turns a shard's output into a journal again, without its failures."""
        journal = Journal(self._state / "reopened")
        journal.remove()
        records: dict[str, int] = {}
        for entry in record["files"]:
            if self._format.per_item:
                records[entry["key"]] = journal.append(entry)
                continue
            for tokens in self._format.read(self._out / entry["file"], self._codec):
                records[tokens.key] = journal.append(*pack_tokens(tokens))
        if records:
            journal.path.replace(self._journal(shard).path)
        self._shards.append({"shard": shard, "open": True})
        del self._done[shard]
        self._records[shard] = records

    def _clear(self) -> None:
        shutil.rmtree(self._state)
        with contextlib.suppress(OSError):  # another job of the array has its state there
            self._state.parent.rmdir()


def _summary(about: dict[str, Any]) -> dict[str, Any]:
    """A record without what is as long as the recording."""
    return {name: about[name] for name in about if name != "segment_frames"}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _locked(path: Path) -> IO[bytes]:
    """The file `path`, locked until it is closed or the process ends; its folder is made. Raises
    OSError where another process has it."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("ab")
        except FileNotFoundError:  # another process of the job has just ended
            continue
        if fcntl is None:
            return file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise OSError(
                f"output {path.parents[2]}: another process is writing this job"
            ) from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # it has been removed, and guards nothing
