"""Batches whose streams go on alike, which one native call advances: as any others, but faster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from interleavings import check_lives
from programs import HOP, tiny_program

import encodec_fast as ef

N_Q = 2
BATCH = 3
DIRECTIONS = ["encode", "decode"]
KINDS_AND_STARTS = [
    *((kind, start) for kind in ("reflect", "constant") for start in ("exact", "low_latency")),
    *(("ahead", "exact"), ("ahead_constant", "exact")),
]
Codecs = Callable[[str], ef.Codec]


@pytest.fixture(scope="module")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> Codecs:
    folder = tmp_path_factory.mktemp("programs")
    kinds = ("reflect", "constant", "ahead", "ahead_constant")
    return {kind: ef.Codec.load(tiny_program(folder, kind, 2)) for kind in kinds}.__getitem__


def streams(codec: ef.Codec, direction: str, batch: int | None, start: str = "exact") -> Any:
    if direction == "encode":
        return codec.stream_encoder(6.0, batch=batch, start=start)
    return codec.stream_decoder(batch=batch, start=start)


def source(rng: np.random.Generator, direction: str, length: int) -> Any:
    if direction == "encode":
        return rng.standard_normal((BATCH, 2, length)).astype(np.float32)
    return rng.integers(0, 32, (BATCH, N_Q, length)).astype(np.uint16)


class Calls:
    """The native object, with a note of its calls."""

    def __init__(self, native: Any) -> None:
        self.native = native
        self.names: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.names.append(name)
        return getattr(self.native, name)


@pytest.mark.parametrize(("kind", "start"), KINDS_AND_STARTS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("seed", range(4))
def test_arrays_are_as_lists(
    codecs: Codecs, kind: str, start: str, direction: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    arrays, lists = (streams(codecs(kind), direction, BATCH, start) for _ in range(2))
    taken = check_lives(
        rng,
        arrays,
        lists,
        lambda length: source(rng, direction, length),
        HOP if direction == "encode" else 1,
    )
    assert taken > 5


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("share", [1.0, 1.5])
def test_a_live_step_is_one_native_call(codecs: Codecs, direction: str, share: float) -> None:
    """With input that waits and without, and again once a stream that began anew has caught up."""
    rng = np.random.default_rng(0)
    batch = streams(codecs("reflect"), direction, BATCH, "low_latency")
    batch._native = calls = Calls(batch._native)
    length = int(share * (HOP if direction == "encode" else 2))
    for _ in range(4):
        batch.push(source(rng, direction, length))
    assert calls.names == ["run_batch"] * 4
    calls.names.clear()
    batch.reset([1])
    for _ in range(3):
        batch.push(list(source(rng, direction, 2 * HOP)))
    batch.push(source(rng, direction, 2 * HOP))
    assert calls.names == ["reset", "run", "run", "run", "run_batch"]


def test_what_waits_is_not_the_callers(codecs: Codecs) -> None:
    rng = np.random.default_rng(0)
    whole = source(rng, "encode", 9 * HOP)
    batch = streams(codecs("constant"), "encode", BATCH)
    buffer = whole[:, :, : 4 * HOP + 1].copy()
    head = batch.push(buffer)
    buffer[:] = 9.0
    codes = [head, batch.push(whole[:, :, 4 * HOP + 1 :]), np.stack(batch.flush())]
    alone = streams(codecs("constant"), "encode", None)
    for lane, found in enumerate(np.concatenate(codes, axis=2)):
        alone.reset()
        expected = [alone.push(whole[lane]), alone.flush()]
        assert np.array_equal(found, np.concatenate(expected, axis=1))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_failed_call_ends_all_streams(codecs: Codecs, direction: str) -> None:
    rng = np.random.default_rng(0)
    batch = streams(codecs("constant"), direction, BATCH)
    data = source(rng, direction, 4 * HOP)
    batch.push(data)
    native = batch._native

    class Failing:
        def run_batch(self, *arguments: Any) -> Any:
            # As another thread would find it.
            with pytest.raises(ValueError, match=r"stream 0: .* or another thread is in one"):
                batch.push(data)
            raise MemoryError

    batch._native = Failing()
    with pytest.raises(MemoryError):
        batch.push(data)
    batch._native = native
    for call in (lambda: batch.push(data), lambda: batch.push([data[2]], [2]), batch.flush):
        with pytest.raises(ValueError, match=r"stream [02]: an earlier call failed \(call reset"):
            call()
    batch.reset()
    assert np.array_equal(
        batch.push(data)[1], streams(codecs("constant"), direction, None).push(data[1])
    )


def test_the_native_calls_refuse_what_is_no_batch(codecs: Codecs) -> None:
    program = codecs("ahead").program
    encoder, decoder = program.new_encoder(2), program.new_decoder(2)
    audio, codes = np.zeros((2, 2, 40 * HOP), np.float32), np.zeros((2, N_Q, 40), np.uint16)
    for wrong, n_q, words in (
        (audio[:1], 1, "expected .streams of the batch"),
        (audio[:, :1], 1, "expected .streams of the batch"),
        (audio[:, :, 1:], 1, "expected a multiple of"),
        (audio[:, :, :HOP], 1, "the first one needs"),
        (audio, 0, "n_q: expected 1"),
        (audio, 99, "n_q: expected 1"),
    ):
        with pytest.raises(ValueError, match=words):
            encoder.run_batch(np.ascontiguousarray(wrong), n_q)
    for wrong_codes in (codes[:1], codes[:, :0], codes + np.uint16(32)):
        with pytest.raises(ValueError, match="expected"):
            decoder.run_batch(np.ascontiguousarray(wrong_codes))
    assert encoder.run_batch(audio, N_Q).shape[:2] == (2, N_Q)  # and no stream has failed
    assert decoder.run_batch(codes).shape[:2] == (2, 2)
    assert encoder.run_batch(audio[:, :, :0], N_Q).shape == (2, N_Q, 0)
    encoder.reset(1)
    with pytest.raises(ValueError, match="not in step"):
        encoder.run_batch(audio, N_Q)


def test_codebooks_of_arrays_are_fixed(codecs: Codecs) -> None:
    rng = np.random.default_rng(0)
    decoder = streams(codecs("constant"), "decode", BATCH)
    codes = source(rng, "decode", 4)
    with pytest.raises(ValueError, match=r"frames: expected 1\.\.4 codebooks, found 6"):
        decoder.push(np.concatenate([codes] * 3, axis=1))
    decoder.push(codes[:, :1])  # what failed has fixed nothing
    for _ in range(2):
        with pytest.raises(ValueError, match="frames: expected as before 1 codebooks, found 2"):
            decoder.push(codes)
        decoder.reset([0, 1, 2])
    decoder.reset()
    assert decoder.push(codes).shape == (BATCH, 2, 4 * HOP)


@pytest.mark.parametrize("who", [None, [1]])
@pytest.mark.parametrize("form", [np.asarray, list])
def test_reset_forgets_what_waits(codecs: Codecs, who: list[int] | None, form: Any) -> None:
    """Of streams that hold back as much, and of the one among them that is reset."""
    rng = np.random.default_rng(0)
    batch = streams(codecs("reflect"), "encode", BATCH, "low_latency")
    parts = source(rng, "encode", HOP + 2), source(rng, "encode", 3 * HOP + 1)
    batch.push(form(parts[0]))
    batch.reset(who)
    found = batch.push(list(parts[1]))
    for lane in range(BATCH):
        alone = streams(codecs("reflect"), "encode", None, "low_latency")
        if who is not None and lane not in who:
            alone.push(parts[0][lane])
        assert np.array_equal(found[lane], alone.push(parts[1][lane]))
