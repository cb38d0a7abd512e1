"""Items that are read ahead for a device: in order, in bounded memory, and no thread is left."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import alone, same_codes, write_corpus
from programs import tiny_program

import encodec_fast as ef
from encodec_fast import _native
from encodec_fast.batch import run
from encodec_fast.batch.coding import Failure
from encodec_fast.batch.items import FileLocation, Item
from encodec_fast.batch.read_ahead import DEPTH, ReadAhead
from encodec_fast.batch.run import coded_items
from encodec_fast.batch.sources import list_items


def items_of(count: int) -> list[Item]:
    return [Item(str(number), FileLocation(""), str(number)) for number in range(count)]


class Readings:
    """Chunks of items: item n has n + 1, each filled with its number. Counts what is not taken."""

    def __init__(self) -> None:
        self.given = 0
        self.taken = 0
        self.most = 0
        self.lock = threading.Lock()

    def read(self, item: Item) -> Iterator[Any]:
        for _ in range(int(item.key) + 1):
            time.sleep(0.0002)
            with self.lock:
                self.given += 1
                self.most = max(self.most, self.given - self.taken)
            yield np.full((1, 4), float(item.key), np.float32)


@pytest.mark.parametrize("threads", [1, 4])
def test_each_item_has_its_chunks_in_bounded_memory(threads: int) -> None:
    readings = Readings()
    ahead = ReadAhead(iter(items_of(40)), readings.read, threads, 5)
    seen = []
    for item in ahead:
        chunks = 0
        for chunk in ahead.chunks(item):
            with readings.lock:
                readings.taken += 1
            assert (chunk == float(item.key)).all()
            chunks += 1
        assert chunks == int(item.key) + 1
        seen.append(item.key)
    ahead.close()
    assert seen == [str(n) for n in range(40)]
    # Of the item that is taken and of five behind it, besides what each thread has in its hands.
    assert readings.most <= 6 * DEPTH + threads + 1


def test_items_behind_the_first_are_read_before_they_are_taken() -> None:
    begun = [threading.Event() for _ in range(8)]

    def read(item: Item) -> Iterator[Any]:
        begun[int(item.key)].set()
        yield np.zeros((1, 1), np.float32)

    ahead = ReadAhead(iter(items_of(8)), read, 2, 3)
    first = next(ahead)
    assert first.key == "0"
    assert all(event.wait(5) for event in begun[:4])
    time.sleep(0.05)
    assert not any(event.is_set() for event in begun[4:])
    ahead.close()


def test_errors_come_behind_the_chunks_before_them() -> None:
    def read(item: Item) -> Iterator[Any]:
        yield np.zeros((1, 1), np.float32)
        raise ValueError(f"item {item.key} is damaged")

    ahead = ReadAhead(iter(items_of(3)), read, 2, 1)
    for item in ahead:
        chunks = ahead.chunks(item)
        next(chunks)
        with pytest.raises(ValueError, match=f"item {item.key} is damaged"):
            next(chunks)
    ahead.close()


def test_close_ends_threads_and_whoever_waits() -> None:
    before = threading.active_count()
    go_on = threading.Event()

    def read(item: Item) -> Iterator[Any]:
        go_on.wait(10)  # a file server that answers late
        yield np.zeros((1, 1), np.float32)

    ahead = ReadAhead(iter(items_of(3)), read, 2, 2)
    errors: list[Exception] = []

    def wait() -> None:
        try:
            next(ahead.chunks(next(ahead)))
        except OSError as error:
            errors.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.05)
    ahead.close()
    waiting.join(5)
    assert len(errors) == 1
    go_on.set()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


class Elsewhere:
    """A device that is the CPU: what a program's `device` has."""

    device = "cuda:0"
    breadth = 16

    def __init__(self, program: Any) -> None:
        self._program = program

    def new_encoder(self, lanes: int, low_latency: bool) -> Any:
        program = self._program
        return _native.Encoder(program.encoder, program.codebooks, lanes, low_latency)


@pytest.mark.parametrize("kind", [("reflect", 1), ("segments", 2)])
@pytest.mark.parametrize("threads", [1, 3])
def test_codes_on_a_device_are_those_of_each_recording_alone(
    tmp_path: Path, kind: tuple[str, int], threads: int
) -> None:
    codec = ef.Codec.load(tiny_program(tmp_path, *kind))
    device: Any = Elsewhere(codec.program)
    (tmp_path / "corpus").mkdir()
    write_corpus(tmp_path / "corpus")
    (tmp_path / "corpus" / "broken.flac").write_bytes(b"nothing")
    items = list_items(tmp_path / "corpus")
    program = replace(codec.program, device=device)
    found = {one.key: one for one in coded_items(program, codec.n_codebooks, items, threads)}
    assert found.keys() == {item.key for item in items}
    for item in items:
        outcome = found[item.key]
        if item.key == "broken.flac":
            assert isinstance(outcome, Failure)
        else:
            assert same_codes(outcome.to_codes(), alone(codec, item.source))  # type: ignore[union-attr]  # tokens
    assert list(coded_items(program, 1, [], threads)) == []


def test_a_run_on_a_device_ends_with_its_iteration(tmp_path: Path) -> None:
    codec = ef.Codec.load(tiny_program(tmp_path, "reflect", 1))
    device: Any = Elsewhere(codec.program)
    (tmp_path / "corpus").mkdir()
    write_corpus(tmp_path / "corpus")
    before = threading.active_count()
    running = coded_items(
        replace(codec.program, device=device), 1, list_items(tmp_path / "corpus") * 1, 3
    )
    next(running)
    running.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_a_run_that_waits_for_files_ends_with_its_iteration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who codes waits for a file; after it there are others, which nobody reads any more."""
    codec = ef.Codec.load(tiny_program(tmp_path, "reflect", 1))
    read: list[str] = []

    def reader(_: Any) -> Any:
        def chunks(item: Item) -> Iterator[Any]:
            read.append(item.key)
            if item.key != "0":
                time.sleep(0.2)  # a slow file server
            yield np.zeros((codec.channels, 4000), np.float32)

        return chunks

    monkeypatch.setattr(run, "_reader", reader)
    device: Any = Elsewhere(codec.program)
    before = threading.active_count()
    running = coded_items(replace(codec.program, device=device), 1, items_of(200), 2)
    next(running)
    started = time.monotonic()
    running.close()
    assert time.monotonic() - started < 5
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
    assert len(read) < 20  # none of those that wait for a thread
