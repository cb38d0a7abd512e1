"""Segments in groups and on threads: the same results in the same order, nothing left behind."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from programs import tiny_program

import encodec_fast as ef
from encodec_fast import _native, segments
from encodec_fast.blocks import BlockDecoder
from encodec_fast.segments import Ordered


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> ef.Codec:
    return ef.Codec.load(tiny_program(tmp_path_factory.mktemp("program"), "segments", 2))


def recording(length: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((2, length)).astype(np.float32)


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_groups_and_threads_do_not_show(
    codec: ef.Codec, monkeypatch: pytest.MonkeyPatch, lanes: int, threads: int
) -> None:
    """Segments are 100 samples every 90: one, odd counts, and more than all threads hold."""
    lengths = (1, 100, 101, 90 * 7 + 11, 90 * 53 + 3)
    monkeypatch.setattr(segments, "SEGMENT_LANES", 1)
    expected = [codec.compress(recording(n, n), 12.0) for n in lengths]
    heard = [codec.decompress(data) for data in expected]
    monkeypatch.setattr(segments, "SEGMENT_LANES", lanes)
    threaded = ef.Codec(codec.program, threads)
    for length, data, wav in zip(lengths, expected, heard, strict=True):
        assert threaded.compress(recording(length, length), 12.0) == data
        assert np.array_equal(threaded.decompress(data), wav)


@pytest.mark.parametrize("threads", [1, 3])
def test_natives_are_kept(codec: ef.Codec, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    made = []

    def noting(kind: Any) -> Any:
        return lambda *arguments: (made.append(kind), kind(*arguments))[1]

    for name in ("Encoder", "Decoder"):
        monkeypatch.setattr(_native, name, noting(getattr(_native, name)))
    threaded = ef.Codec(codec.program, threads)
    wav = recording(90 * 60)
    codes = threaded.encode(wav)
    assert 1 <= len(made) <= threads
    made.clear()
    threaded.decode(codes)
    assert 1 <= len(made) <= threads


def test_memory_is_bounded() -> None:
    """However many items come, few are under way or wait."""
    jobs: Ordered[int, int] = Ordered(lambda group: group, 2)
    results: list[int] = []
    for item in range(1000):
        results += jobs.push(item)
        assert item - len(results) <= 3 * 2 * segments.SEGMENT_LANES
    assert results + jobs.flush() == list(range(1000))


def test_an_error_comes_out_and_stops_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SEGMENT_LANES", 1)
    gate = threading.Event()
    begun = []

    def run(group: list[int]) -> list[int]:
        begun.extend(group)
        if group == [0]:
            raise ValueError("broken")
        assert gate.wait(60)
        return group

    before = threading.active_count()
    jobs = Ordered(run, 2)
    with pytest.raises(ValueError, match="broken"):
        for item in range(100):
            jobs.push(item)
    closing = threading.Thread(target=jobs.close)
    closing.start()
    deadline = time.monotonic() + 20
    while not jobs._groups[-1].cancelled() and time.monotonic() < deadline:
        time.sleep(0.001)
    gate.set()  # only now can a thread take what was waiting
    closing.join()
    assert sorted(begun) == [0, 1, 2]
    assert threading.active_count() == before


@pytest.mark.parametrize("direction", ["encode", "decode", "encode_many"])
def test_no_threads_are_left_after_an_error(codec: ef.Codec, direction: str) -> None:
    threaded = ef.Codec(codec.program, 3)
    wav = recording(90 * 80)
    codes = threaded.encode(wav)
    wav[:, 90 * 50 :] *= np.float32(1e30)
    codes.codes[20], codes.codes[40] = codes.codes[20][:, :3], codes.codes[40][:, :3]
    before = threading.active_count()
    with pytest.raises(ValueError, match=r"too loud|does not fit"):
        if direction == "encode":
            threaded.encode(wav)
        elif direction == "decode":
            threaded.decode(codes)
        else:
            threaded.encode_many([wav[:, :100], wav])
    assert threading.active_count() == before


def test_a_loud_recording_is_named(codec: ef.Codec) -> None:
    quiet = recording(200)
    with pytest.raises(ValueError, match=r"^wavs\[1\]: too loud"):
        codec.encode_many([quiet, quiet * np.float32(1e30)])
    with pytest.raises(ValueError, match=r"^wav: too loud"):
        codec.encode(quiet * np.float32(1e30))


@pytest.mark.parametrize("size", [50, 250])
def test_the_callers_array_is_not_kept(codec: ef.Codec, size: int) -> None:
    """A reader may fill one buffer again and again."""
    wav = recording(1000)
    buffer = np.empty((2, size), np.float32)
    threaded = ef.Codec(codec.program, 2)
    with threaded.block_encoder(2) as encoder:
        pieces = []
        for start in range(0, 1000, size):
            buffer[:] = wav[:, start : start + size]
            pieces += encoder.push(buffer)
            buffer[:] = 0
        pieces += encoder.flush()
    for piece, codes in zip(pieces, codec.encode(wav, 6.0).codes, strict=True):
        assert np.array_equal(piece.codes, codes)


def test_live_segments_do_not_wait_for_the_next(tmp_path: Any) -> None:
    codec = ef.Codec.load(tiny_program(tmp_path, "segments"))
    pieces = codec.block_encoder(2, live=True).push(np.ones((1, 500), np.float32))
    decoder = BlockDecoder(codec.program, 1, live=True)
    assert [decoder.push(piece).shape[1] for piece in pieces] == [90] * len(pieces)
