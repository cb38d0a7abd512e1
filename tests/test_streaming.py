"""Batches of live streams: any subset advances, each as if it were alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from programs import HOP, tiny_program

import encodec_fast as ef
from encodec_fast.lanes import BLOCK_FRAMES

N_Q = 2
BATCH = 4
Codecs = Callable[[str], ef.Codec]


@pytest.fixture(scope="module")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> Codecs:
    folder = tmp_path_factory.mktemp("programs")
    kinds = ("reflect", "constant", "ahead", "ahead_constant")
    return {kind: ef.Codec.load(tiny_program(folder, kind, 2)) for kind in kinds}.__getitem__


def recording(length: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((2, length)).astype(np.float32)


def some_codes(frames: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 32, (N_Q, frames)).astype(np.uint16)


def stream(codec: ef.Codec, direction: str, batch: int | None, start: str = "exact") -> Any:
    if direction == "encode":
        return codec.stream_encoder(6.0, batch=batch, start=start)
    return codec.stream_decoder(batch=batch, start=start)


def source(direction: str, frames: int, seed: int = 0) -> Any:
    return recording(frames * HOP, seed) if direction == "encode" else some_codes(frames, seed)


def alone(codec: ef.Codec, direction: str, start: str, data: Any) -> Any:
    one = stream(codec, direction, None, start)
    return np.concatenate([one.push(data), one.flush()], axis=1)


DIRECTIONS = ["encode", "decode"]
STARTS = ["exact", "low_latency"]
KINDS_AND_STARTS = [
    *((kind, start) for kind in ("reflect", "constant") for start in STARTS),
    *(("ahead", "exact"), ("ahead_constant", "exact")),  # which have no other
]


@pytest.mark.parametrize(("kind", "start"), KINDS_AND_STARTS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("seed", range(3))
def test_streams_of_a_batch_are_as_if_alone(
    codecs: Codecs, kind: str, direction: str, start: str, seed: int
) -> None:
    """Whoever advances, by whatever chunks, whoever ends and begins anew beside it."""
    codec = codecs(kind)
    rng = np.random.default_rng(seed)
    batch = stream(codec, direction, BATCH, start)
    lives = [0] * BATCH
    left: list[Any] = [None] * BATCH
    inputs: list[Any] = [None] * BATCH
    parts: list[list[Any]] = [[] for _ in range(BATCH)]
    while min(lives) < 3:
        chosen = rng.permutation(BATCH)[: rng.integers(1, BATCH + 1)].tolist()
        for i in chosen:
            if left[i] is None:
                batch.reset([i])
                unit = HOP if direction == "encode" else 1
                inputs[i] = left[i] = source(direction, 50, i + BATCH * lives[i])[
                    :, : rng.integers(50 * unit)
                ]
                parts[i] = []
        sizes = [int(rng.integers(0, left[i].shape[1] + 1)) for i in chosen]
        chunks = [left[i][:, :n] for i, n in zip(chosen, sizes, strict=True)]
        results = batch.push(chunks, chosen)
        assert isinstance(results, list)
        for i, n, result in zip(chosen, sizes, results, strict=True):
            left[i] = left[i][:, n:]
            parts[i].append(result)
        over = [i for i in chosen if left[i].shape[1] == 0]
        for i, result in zip(over, batch.flush(over), strict=True):
            joined = np.concatenate([*parts[i], result], axis=1)
            assert np.array_equal(joined, alone(codec, direction, start, inputs[i]))
            left[i] = None
            lives[i] += 1


@pytest.mark.parametrize("kind", ["reflect", "ahead"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_arrays_of_a_subset(codecs: Codecs, kind: str, direction: str) -> None:
    codec = codecs(kind)
    data = np.stack([source(direction, 40, seed) for seed in range(BATCH)])
    batch = stream(codec, direction, BATCH)
    first = batch.push(data[[3, 1]], np.array([3, 1]))
    assert isinstance(first, np.ndarray) and first.shape[0] == 2
    rest = batch.push(list(data[[0, 2]]), (0, np.int64(2)))
    assert [r.shape for r in rest] == [first[0].shape] * 2
    last = batch.flush()
    assert isinstance(last, list) and len(last) == BATCH
    for index, part in ((3, first[0]), (1, first[1]), (0, rest[0]), (2, rest[1])):
        joined = np.concatenate([part, last[index]], axis=1)
        assert np.array_equal(joined, alone(codec, direction, "exact", data[index]))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_empty_pushes(codecs: Codecs, direction: str) -> None:
    batch = stream(codecs("constant"), direction, BATCH)
    out = (2, 0)  # channels are as many as codebooks
    nobody = np.stack([source(direction, 1)])[:0]
    assert batch.push(nobody, []).shape[0] == 0
    assert batch.push([], []) == []
    nothing = source(direction, 0)
    assert batch.push(np.stack([nothing] * BATCH)).shape == (BATCH, *out)
    assert [r.shape for r in batch.push([nothing], [2])] == [out]
    assert [r.shape for r in batch.flush([1])] == [out]
    assert batch.flush([]) == []


class Counting:
    """The native object, with a note of how many streams took part in each call."""

    def __init__(self, native: Any) -> None:
        self.native = native
        self.active: list[int] = []

    def run(self, blocks: Any, last: Any, *more: Any) -> Any:
        self.active.append(sum(block.shape[1] > 0 for block in blocks))
        return self.native.run(blocks, last, *more)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_streams_that_are_ready_share_a_native_call(codecs: Codecs, direction: str) -> None:
    batch = stream(codecs("constant"), direction, BATCH)
    batch._native = counting = Counting(batch._native)
    one = source(direction, 1)
    batch.push([one, one, one[:, :0]], [0, 2, 3])
    batch.push(np.stack([one] * BATCH))
    batch.push([source(direction, 2 * BLOCK_FRAMES + 1), one], [1, 3])
    assert counting.active == [2, 4, 2, 1, 1]


@pytest.mark.parametrize("kind", ["reflect", "ahead"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_one_array_for_streams_out_of_step(codecs: Codecs, kind: str, direction: str) -> None:
    """Refused before anything advances; a list is taken."""
    codec = codecs(kind)
    data = source(direction, 60)
    batch = stream(codec, direction, 2)
    cut = data.shape[1] // 2
    head = batch.push([data[:, :cut]], [0])[0]
    chunk = np.stack([data[:, cut : cut + data.shape[1] // 60]] * 2)
    with pytest.raises(ValueError, match="not in step"):
        batch.push(chunk)
    tails = batch.push([data[:, cut:], data])
    found = batch.flush()
    whole = alone(codec, direction, "exact", data)
    assert np.array_equal(np.concatenate([head, tails[0], found[0]], axis=1), whole)
    assert np.array_equal(np.concatenate([tails[1], found[1]], axis=1), whole)


@pytest.mark.parametrize("kind", ["reflect", "ahead"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_rests_of_different_lengths(codecs: Codecs, kind: str, direction: str) -> None:
    codec = codecs(kind)
    inputs = [source(direction, 2), source(direction, 3)]
    batch = stream(codec, direction, 2)
    batch.push(inputs)
    rests = batch.flush()
    assert isinstance(rests, list)
    for data, rest in zip(inputs, rests, strict=True):
        assert np.array_equal(rest, alone(codec, direction, "exact", data))


@pytest.mark.parametrize("kind", ["reflect", "ahead"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_lives_of_single_streams(codecs: Codecs, kind: str, direction: str) -> None:
    codec = codecs(kind)
    data = np.stack([source(direction, 50, seed) for seed in range(3)])
    batch = stream(codec, direction, 3)
    batch.push(data)
    batch.flush([1])
    for call in (lambda: batch.push(data), lambda: batch.flush([2, 1]), batch.flush):
        with pytest.raises(ValueError, match=r"stream 1: was flushed; call reset\(\[1\]\)"):
            call()
    batch.reset([1, 2])  # one that has ended and one in mid-stream
    again = [
        np.concatenate([p, f], axis=1)
        for p, f in zip(batch.push(data[1:], [1, 2]), batch.flush([1, 2]), strict=True)
    ]
    for index, found in zip((1, 2), again, strict=True):
        assert np.array_equal(found, alone(codec, direction, "exact", data[index]))


BAD_STREAMS: list[Any] = [[0, 0], [4], [-1], [True, 2], [1.0], ["1"], "01", 3, [[0, 1]], [None]]


@pytest.mark.parametrize("streams", BAD_STREAMS, ids=repr)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_bad_indices(codecs: Codecs, direction: str, streams: Any) -> None:
    batch = stream(codecs("constant"), direction, BATCH)
    one = source(direction, 1)
    for call in (
        lambda: batch.push(np.stack([one] * 2), streams),
        lambda: batch.push([one] * 2, streams),
        lambda: batch.flush(streams),
        lambda: batch.reset(streams),
    ):
        with pytest.raises(ValueError, match=r"streams: expected (distinct )?indices"):
            call()
    single = stream(codecs("constant"), direction, None)
    for call in (lambda: single.push(one, [0]), lambda: single.flush([0])):
        with pytest.raises(ValueError, match="streams: expected None where there is no batch"):
            call()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_bad_chunks(codecs: Codecs, direction: str) -> None:
    """All are refused before any stream advances."""
    codec = codecs("constant")
    batch = stream(codec, direction, BATCH)
    one = source(direction, 20)
    name = "chunk" if direction == "encode" else "frames"
    wrong = one.astype(np.int16) if direction == "encode" else one.astype(np.float32)
    cases: list[tuple[Any, Any, str]] = [
        (one, None, rf"{name}: expected shape \[4, (2|any), any\], found"),
        (np.stack([one] * 3), None, rf"{name}: expected shape \[4, (2|any), any\], found \[3"),
        (np.stack([one] * 3), [0, 2], rf"{name}: expected shape \[2, (2|any), any\], found \[3"),
        ([one] * 3, None, rf"{name}: expected one array per stream \(4\), found 3"),
        ([one, one[0]], [0, 2], rf"{name}\[1\]: expected shape"),
        ([one, wrong], [0, 2], rf"{name}\[1\]: expected (floating|integer)"),
    ]
    for chunk, streams, message in cases:
        with pytest.raises(ValueError, match=message):
            batch.push(chunk, streams)
    found = batch.push([one], [0])[0]
    assert np.array_equal(found, stream(codec, direction, None).push(one))


def test_codebooks_are_fixed_for_a_batch(codecs: Codecs) -> None:
    decoder = codecs("constant").stream_decoder(batch=2)
    with pytest.raises(ValueError, match=r"frames: expected as before 2 codebooks, found 1"):
        decoder.push([some_codes(1), some_codes(1)[:1]])
    decoder.push([some_codes(1)[:1]], [1])  # what failed has fixed nothing
    for reset in (lambda: None, lambda: decoder.reset([0, 1])):
        reset()
        with pytest.raises(ValueError, match="codebooks, found 2"):
            decoder.push([some_codes(1)], [0])
    decoder.reset()
    assert decoder.push([some_codes(1)], [0])[0].shape == (2, HOP)


@pytest.mark.parametrize("batch", [0, -1, True, 1.5, "2", (1 << 16) + 1, 10**12, 10**30])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_bad_batches(codecs: Codecs, direction: str, batch: Any) -> None:
    with pytest.raises(ValueError, match=r"batch: expected None or an integer in 1\.\.65536"):
        stream(codecs("constant"), direction, batch)


def test_the_largest_batch(codecs: Codecs) -> None:
    encoder = codecs("constant").stream_encoder(6.0, batch=1 << 16)
    assert encoder.push([recording(HOP)], [65535])[0].shape == (N_Q, 1)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_failed_call_ends_the_streams_in_it(codecs: Codecs, direction: str) -> None:
    codec = codecs("constant")
    batch = stream(codec, direction, 3)
    data = source(direction, 40)
    head = batch.push([data[:, : 5 * data.shape[1] // 40]], [0])[0]
    native = batch._native

    class Failing:
        def run(self, *arguments: Any) -> Any:
            raise MemoryError

    batch._native = Failing()
    with pytest.raises(MemoryError):
        batch.push([data, data], [1, 2])
    batch._native = native
    with pytest.raises(ValueError, match=r"stream 1: an earlier call failed \(call reset\(\[1\]\)"):
        batch.push(np.stack([data] * 3))
    tail = batch.push([data[:, 5 * data.shape[1] // 40 :]], [0])[0]
    whole = alone(codec, direction, "exact", data)
    assert np.array_equal(np.concatenate([head, tail], axis=1), whole)
    batch.reset([1])
    assert np.array_equal(batch.push([data], [1])[0], whole)
