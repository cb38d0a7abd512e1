"""Many recordings to files and back at once: what each gets alone."""

from __future__ import annotations

import io
import random
import threading
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from signals import program_material
from version_1 import ENTROPIES, KINDS, codes_of, compressed, outcome, recording

import encodec_fast as ef
from encodec_fast import _native, chunk_codes, many_decoding, pipes

# One sample, around a frame and a segment, several blocks, and several key intervals (of 80000).
LENGTHS = (1, 5, 6, 7, 89, 90, 91, 100, 101, 240, 241, 3001, 1500, 200_001)


@pytest.fixture(scope="module", params=KINDS)
def codec(request: pytest.FixtureRequest, tiny_entropies: Path) -> ef.Codec:
    return ef.Codec.load(tiny_entropies / f"tiny_{request.param}.safetensors")


@pytest.fixture(scope="module")
def causal(tiny_entropies: Path) -> ef.Codec:
    return ef.Codec.load(tiny_entropies / "tiny_reflect.safetensors")


def on(codec: ef.Codec, threads: int, program: Any = None) -> ef.Codec:
    return ef.Codec(program or codec.program, threads, codec._entropy_file)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("entropy", ENTROPIES)
def test_bytes_and_samples_are_those_of_one_by_one(
    codec: ef.Codec, entropy: str, threads: int
) -> None:
    lengths = list(LENGTHS)
    random.Random(threads).shuffle(lengths)
    wavs = [recording(length) for length in lengths]
    alone = [codec.compress(wav, 12.0, entropy) for wav in wavs]
    assert on(codec, threads).compress_many(wavs, 12.0, entropy) == alone
    found = on(codec, threads).decompress_many(alone)
    for wav, data, samples in zip(wavs, alone, found, strict=True):
        assert samples.dtype == np.float32 and samples.flags.c_contiguous
        assert samples.shape == wav.shape
        assert np.array_equal(samples, codec.decompress(data, strict=True))


@pytest.mark.parametrize("lanes", [1, 2, 3, 64])
def test_lanes_do_not_show(codec: ef.Codec, monkeypatch: pytest.MonkeyPatch, lanes: int) -> None:
    monkeypatch.setattr(chunk_codes, "MANY_LANES", lanes)
    monkeypatch.setattr(many_decoding, "MANY_LANES", lanes)
    monkeypatch.setattr(many_decoding, "RECORDING_LANES", lanes)
    wavs = [recording(length) for length in LENGTHS[:-1]]
    alone = [codec.compress(wav, 6.0, "lm") for wav in wavs]
    assert codec.compress_many(wavs, 6.0, "lm") == alone
    # In short chunks and key intervals of several: those of one file end at different times.
    chunked = [compressed(codec, wav, "lm", key=3) for wav in wavs]
    for wav, samples in zip(wavs, codec.decompress_many(chunked, strict=True), strict=True):
        assert np.array_equal(samples, codec.decode(codec.encode(wav)))


@pytest.mark.parametrize("threads", [1, 4])
def test_files_of_every_kind_in_one_call(codec: ef.Codec, threads: int) -> None:
    wavs = [recording(length) for length in (700, 1, 3001, 95, 2000)]
    datas = [
        codec.compress(wav, bandwidth, entropy, version)
        for wav in wavs
        for bandwidth in (3.0, 6.0, 12.0)
        for entropy, version in [*((e, 1) for e in ENTROPIES), ("none", 0)]
    ]
    for start in ("exact", "low_latency") if codec.segment_length is None else ("exact",):
        for samples in (0, 1, 4000):
            target = io.BytesIO()
            source = io.BytesIO(recording(max(samples, 1)).T[:samples].tobytes())
            pipes.encode_pipe(
                codec, source, target, sample_format="f32le", entropy="lm", chunk=0.1, start=start
            )
            datas += [target.getvalue(), target.getvalue()[:-1]]  # and one without its end
    random.Random(0).shuffle(datas)
    alone = [outcome(lambda data=data: codec.decompress(data)) for data in datas]
    whole = [n for n, (samples, _) in enumerate(alone) if not isinstance(samples, str)]
    assert len(whole) >= len(datas) - 4
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = on(codec, threads).decompress_many([datas[n] for n in whole])
    assert len(caught) == sum(len(alone[n][1]) for n in whole)
    for n, samples in zip(whole, found, strict=True):
        assert np.array_equal(samples, alone[n][0])


def test_bundled_models() -> None:
    """Of real sizes, in stereo too, with their own language models."""
    for name in ("nano_24khz", "stereo_48khz"):
        codec = ef.Codec.load(name)
        material = program_material("test", codec.sample_rate, codec.channels, 4.0)
        bounds = np.cumsum([3, 700, 40_000, 24_000])
        wavs = np.split(material, [end for end in bounds if end < material.shape[1]], axis=1)
        datas = codec.compress_many(wavs, 6.0, "lm")
        assert datas == [codec.compress(wav, 6.0, "lm") for wav in wavs]
        for data, samples in zip(datas, codec.decompress_many(datas), strict=True):
            assert np.array_equal(samples, codec.decompress(data))


def test_normalised_stereo_segments(tiny_models: Path) -> None:
    """Meta's 48 kHz model: segments of a second that overlap, each with its scale."""
    codec = ef.Codec.load(tiny_models / "encodec_48khz.safetensors", threads=2)
    material = program_material("test", codec.sample_rate, 2, 6.0)
    wavs = [material[:, :n].copy() for n in (1, 47_520, 47_521, 48_001, 200_000)]
    for version in (0, 1):
        datas = codec.compress_many(wavs, 6.0, version=version)
        assert datas == [codec.compress(wav, 6.0, version=version) for wav in wavs]
        for data, samples in zip(datas, codec.decompress_many(datas), strict=True):
            assert np.array_equal(samples, codec.decompress(data))


def test_version_0(codec: ef.Codec) -> None:
    wavs = [recording(length) for length in (1, 3001, 95)]
    datas = codec.compress_many(wavs, 12.0, version=0)
    assert datas == [codec.compress(wav, 12.0, version=0) for wav in wavs]
    assert datas[0][4] == 0


def test_nothing(codec: ef.Codec) -> None:
    for entropy in ENTROPIES:
        assert codec.compress_many([], entropy=entropy) == []
    assert codec.decompress_many([]) == []


def test_torch_tensors(causal: ef.Codec) -> None:
    torch = pytest.importorskip("torch", reason="torch tensors need torch")
    wav = recording(500)
    data = causal.compress(wav, entropy="lm")
    assert causal.compress_many([wav, torch.from_numpy(wav)], entropy="lm") == [data, data]


class Device:
    """In the place of DeviceWeights: what a program asks of a device, done on the CPU."""

    breadth = 2

    def __init__(self, program: Any) -> None:
        self.program = program
        self.coders: list[tuple[Any, int, int]] = []

    def new_encoder(self, lanes: int, low_latency: bool) -> Any:
        return self.program.new_encoder(lanes, low_latency)

    def new_decoder(self, lanes: int, low_latency: bool) -> Any:
        return self.program.new_decoder(lanes, low_latency)

    def new_lm_coder(self, lm: Any, n_q: int, lanes: int) -> Any:
        self.coders.append((lm, n_q, lanes))
        return self.program.new_lm_coder(lm, n_q, lanes)


def same_audio(found: list[Any], expected: list[Any]) -> bool:
    return len(found) == len(expected) and all(map(np.array_equal, found, expected))


def test_a_device_codes_for_itself(codec: ef.Codec, tmp_path: Path) -> None:
    device: Any = Device(codec.program)
    there = on(codec, 1, replace(codec.program, device=device))
    assert codec.entropy_model is not None and there.entropy_model is not None
    wavs = [recording(n) for n in (3000, 1, 200_001, 500)]
    datas = [codec.compress(wav, 6.0, "lm") for wav in wavs]
    for call in (
        lambda: there.compress_many(wavs, 6.0, "lm") == datas,
        lambda: there.compress(wavs[2], 6.0, "lm") == datas[2],
        lambda: same_audio(there.decompress_many(datas), codec.decompress_many(datas)),
        lambda: np.array_equal(there.decompress(datas[2]), codec.decompress(datas[2])),
    ):
        device.coders.clear()
        assert call()
        assert device.coders == [(there.entropy_model.lm, 2, 8 * Device.breadth)]
    device.coders.clear()
    target, pipe = io.BytesIO(), io.BytesIO(wavs[0].T.tobytes())
    pipes.encode_pipe(there, pipe, target, sample_format="f32le", entropy="lm", chunk=0.1)
    assert device.coders == [(there.entropy_model.lm, 2, 1)]  # live: the one stream that there is
    whole = np.concatenate(codec.encode(wavs[0]).codes, axis=1)
    assert np.array_equal(codes_of(there, target.getvalue(), live=True), whole)


@pytest.mark.parametrize("threads", [2, 4])
def test_threads_share_a_file(
    codec: ef.Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """Key intervals of one file under a language model, both ways."""
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "in.wav", recording(400_001).T, codec.sample_rate, "FLOAT")
    codec.compress_file(tmp_path / "in.wav", tmp_path / "one.ecdc", entropy="lm")
    there = on(codec, threads)
    users: set[int] = set()

    class Noting:
        def __init__(self, *arguments: Any) -> None:
            self.native = make(*arguments)
            self.reset = self.native.reset

        def encode(self, *arguments: Any) -> Any:
            users.add(threading.get_ident())
            return self.native.encode(*arguments)

        def decode(self, *arguments: Any) -> Any:
            users.add(threading.get_ident())
            return self.native.decode(*arguments)

    make = _native.LmCoder
    monkeypatch.setattr(_native, "LmCoder", Noting)
    before = threading.active_count()
    there.compress_file(tmp_path / "in.wav", tmp_path / "many.ecdc", entropy="lm")
    assert (tmp_path / "many.ecdc").read_bytes() == (tmp_path / "one.ecdc").read_bytes()
    assert users and threading.get_ident() not in users
    users.clear()
    ef.decompress_file(tmp_path / "many.ecdc", tmp_path / "many.wav", model=there)
    assert users and threading.get_ident() not in users
    monkeypatch.undo()
    ef.decompress_file(tmp_path / "one.ecdc", tmp_path / "one.wav", model=codec)
    assert (tmp_path / "many.wav").read_bytes() == (tmp_path / "one.wav").read_bytes()
    assert threading.active_count() == before


def test_an_error_of_the_language_model_leaves_no_thread(
    causal: ef.Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that fails, say: the error comes out, and the next call works."""
    wavs = [recording(3000)] * 40
    datas = causal.compress_many(wavs, entropy="lm")
    before = threading.active_count()

    def failing(*_: Any) -> Any:
        raise OSError("out of memory")

    class Broken:
        def __init__(self, *_: Any) -> None:
            self.reset = lambda lanes: None
            self.encode = self.decode = failing

    many = on(causal, 3)
    with monkeypatch.context() as patch:
        patch.setattr(_native, "LmCoder", Broken)
        with pytest.raises(OSError, match="out of memory"):
            many.compress_many(wavs, entropy="lm")
        with pytest.raises(OSError, match="out of memory"):
            many.decompress_many(datas)
        assert threading.active_count() == before
    assert many.compress_many(wavs, entropy="lm") == datas
