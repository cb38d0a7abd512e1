"""Many recordings at once: lanes that are refilled, in any number, on any number of threads."""

from __future__ import annotations

import threading
import time
import weakref
from typing import Any

import numpy as np
import pytest
from programs import HOP, tiny_program

import encodec_fast as ef
from encodec_fast import _native, many
from encodec_fast.lanes import BLOCK_FRAMES

KINDS = ["reflect", "constant", "ahead", "ahead_constant", "segments"]
LENGTHS = (1, 600, 6, 95, 3000, 41, 42, 43, 7, 180, 96, 97, 99, 2000, 100, 1000, 12)


@pytest.fixture(scope="module", params=KINDS)
def codec(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ef.Codec:
    return ef.Codec.load(tiny_program(tmp_path_factory.mktemp("program"), request.param, 2))


def recording(length: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((2, length)).astype(np.float32)


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("lanes", [1, 2, 3, 16])
def test_lanes_and_threads_do_not_show(
    codec: ef.Codec, monkeypatch: pytest.MonkeyPatch, lanes: int, threads: int
) -> None:
    monkeypatch.setattr(many, "RECORDING_LANES", lanes)
    wavs = [recording(n, n) for n in LENGTHS]
    found = ef.Codec(codec.program, threads).encode_many(wavs, 12.0)
    for wav, codes in zip(wavs, found, strict=True):
        alone = codec.encode(wav, 12.0)
        assert (codes.scales, codes.audio_length) == (alone.scales, alone.audio_length)
        for a, b in zip(codes.codes, alone.codes, strict=True):
            assert np.array_equal(a, b)


def test_no_recordings(codec: ef.Codec) -> None:
    assert ef.Codec(codec.program, 3).encode_many([]) == []


def test_lanes_stay_full(codec: ef.Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording that ends makes room for the next one, in the same call."""
    if codec.segment_length is not None:
        pytest.skip("segments have no lanes of their own")
    active: list[int] = []

    class Counting:
        def __init__(self, *arguments: Any) -> None:
            self.native = make(*arguments)

        def run(self, audio: Any, *more: Any) -> Any:
            active.append(sum(block.shape[1] > 0 for block in audio))
            return self.native.run(audio, *more)

    make = _native.Encoder
    monkeypatch.setattr(_native, "Encoder", Counting)
    monkeypatch.setattr(many, "RECORDING_LANES", 3)
    block = BLOCK_FRAMES * HOP
    codec.encode_many([recording(n * block, n) for n in (1, 6, 1, 2, 2, 2, 1)])
    assert active == [3, 3, 3, 3, 2, 1]  # 15 blocks, of which one recording has 6


@pytest.mark.parametrize("threads", [1, 2])
def test_few_recordings_are_in_memory(codec: ef.Codec, threads: int) -> None:
    alive: list[weakref.ref[Any]] = []
    most = 0
    lock = threading.Lock()

    def read(number: int) -> Any:
        nonlocal most
        audio = recording(100 + 7 * number)
        with lock:
            alive[:] = [one for one in alive if one() is not None] + [weakref.ref(audio)]
            most = max(most, len(alive))
        return audio

    done = many.encode_recordings(codec.program, 2, threads, range(100), read)
    assert sorted(done) == list(range(100))
    assert all(length == 100 + 7 * number for number, (_, length) in done.items())
    assert most <= threads * (many.RECORDING_LANES + 1)


@pytest.mark.parametrize("threads", [1, 3])
def test_one_bad_recording_stops_all(codec: ef.Codec, threads: int) -> None:
    """Its position is named, no thread goes on for the others, and none is left."""
    before = threading.active_count()
    wavs = [recording(5000, n) for n in range(40)]
    wavs[3] = wavs[3][:, :300].copy()  # the shortest comes last
    wavs[3][1, 7] = np.nan
    with pytest.raises(ValueError, match=r"wavs\[3\]: expected finite"):
        ef.Codec(codec.program, threads).encode_many(wavs)
    assert threading.active_count() == before
    reads: list[int] = []

    def read(number: int) -> Any:
        reads.append(number)
        if number == 0:
            raise ValueError("broken")
        return recording(20000)

    with pytest.raises(ValueError, match="broken"):
        many.encode_recordings(codec.program, 2, threads, range(200), read)
    assert len(reads) <= threads * (many.RECORDING_LANES + 1)
    assert threading.active_count() == before


def test_an_error_stops_the_other_threads(codec: ef.Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the midst of a recording, however long."""
    if codec.segment_length is not None:
        pytest.skip("segments end by themselves")
    calls: list[int] = []

    class Slow:
        def __init__(self, *arguments: Any) -> None: ...

        def run(self, audio: Any, *more: Any) -> Any:
            time.sleep(0.001)
            calls.append(len(audio))
            return [np.zeros((2, 16), np.uint16)] * len(audio)

    monkeypatch.setattr(_native, "Encoder", Slow)
    monkeypatch.setattr(many, "RECORDING_LANES", 1)
    begun = threading.Event()

    def read(number: int) -> Any:
        if number == 0:
            begun.set()
            return recording(16 * HOP * 5000)
        assert begun.wait(60)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        many.encode_recordings(codec.program, 2, 2, [0, 1], read)
    assert len(calls) < 5000


def test_arrays_of_other_kinds(codec: ef.Codec) -> None:
    """float64 and nested lists are converted when their turn comes."""
    wav = recording(200)
    for one in codec.encode_many([wav.astype(np.float64), wav.tolist()]):
        assert np.array_equal(one.codes[0], codec.encode(wav).codes[0])
