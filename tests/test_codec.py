"""The Codec API: shapes, types, errors, and streams against whole recordings."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs import HOP, tiny_program

import encodec_fast as ef

KINDS = ["reflect", "constant", "segments"]


@pytest.fixture(scope="module")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ef.Codec]:
    folder = tmp_path_factory.mktemp("programs")
    loaded = {kind: ef.Codec.load(tiny_program(folder, kind, 2)) for kind in KINDS}
    return loaded.__getitem__


def recording(length: int, seed: int = 0, channels: int = 2) -> Any:
    return np.random.default_rng(seed).standard_normal((channels, length)).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 2, 5, 6, 7, 41, 42, 43, 89, 90, 91, 99, 100, 101, 271])
def test_shapes(codecs: Callable[[str], ef.Codec], kind: str, length: int) -> None:
    codec = codecs(kind)
    codes = codec.encode(recording(length), 6.0)
    if kind == "segments":
        lengths = [min(100, length - start) for start in range(0, length, 90)]
        assert codes.scales is not None and len(codes.scales) == len(lengths)
    else:
        lengths = [length]
        assert codes.scales is None
    assert [c.shape for c in codes.codes] == [(2, -(-n // HOP)) for n in lengths]
    assert all(c.dtype == np.uint16 for c in codes.codes)
    wav = codec.decode(codes)
    assert wav.shape == (2, length) and wav.dtype == np.float32
    data = codec.compress(recording(length), 6.0)
    assert np.array_equal(codec.decompress(data), wav)


def test_bandwidths(codecs: Callable[[str], ef.Codec]) -> None:
    codec = codecs("reflect")
    wav = recording(500)
    everything = codec.encode(wav, None).codes[0]
    assert everything.shape[0] == codec.n_codebooks == 4
    for bandwidth, n_q in ((3.0, 1), (6.0, 2), (12, 4)):
        assert np.array_equal(codec.encode(wav, bandwidth).codes[0], everything[:n_q])
    with pytest.raises(ValueError, match="bandwidth: tiny_reflect supports 3, 6, 12 kbps"):
        codec.encode(wav, 24.0)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
@pytest.mark.parametrize("kind", ["reflect", "constant"])
@pytest.mark.parametrize("batch", [None, 3])
def test_streams_equal_whole(
    codecs: Callable[[str], ef.Codec], kind: str, batch: int | None, data: st.DataObject
) -> None:
    """Whatever the chunks, whatever the length, for one stream and for a batch."""
    codec = codecs(kind)
    length = data.draw(st.integers(0, 400))
    wavs = np.stack([recording(length, seed) for seed in range(batch or 1)])
    source = wavs if batch else wavs[0]
    cuts = sorted(data.draw(st.lists(st.integers(0, length), max_size=8)))
    encoder = codec.stream_encoder(6.0, batch=batch)
    parts = [encoder.push(c) for c in np.split(source, cuts, axis=-1)] + [encoder.flush()]
    codes = np.concatenate(parts, axis=-1)
    frames = codes.shape[-1]
    assert frames == -(-length // HOP)
    cuts = sorted(data.draw(st.lists(st.integers(0, frames), max_size=8)))
    decoder = codec.stream_decoder(batch=batch)
    parts = [decoder.push(c) for c in np.split(codes, cuts, axis=-1)] + [decoder.flush()]
    audio = np.concatenate(parts, axis=-1)
    if length == 0:
        assert audio.shape[-1] == 0
        return
    for index, wav in enumerate(wavs):
        whole = codec.encode(wav, 6.0)
        assert np.array_equal(codes[index] if batch else codes, whole.codes[0])
        found = audio[index] if batch else audio
        assert np.array_equal(found[:, :length], codec.decode(whole))


def test_stream_life(codecs: Callable[[str], ef.Codec]) -> None:
    codec = codecs("reflect")
    wav = recording(300)
    encoder = codec.stream_encoder(6.0)
    assert encoder.push(wav[:, :0]).shape == (2, 0)
    first = np.concatenate([encoder.push(wav), encoder.flush()], axis=1)
    for call in (encoder.flush, lambda: encoder.push(wav)):
        with pytest.raises(ValueError, match=r"flushed.*reset"):
            call()
    encoder.reset()
    encoder.push(wav[:, :200])
    encoder.reset()  # in mid-stream
    again = np.concatenate([encoder.push(wav), encoder.flush()], axis=1)
    assert np.array_equal(first, again)


def test_low_latency_start(codecs: Callable[[str], ef.Codec]) -> None:
    """A frame per hop from the first; what differs from the exact start fades away."""
    codec = codecs("reflect")
    wav = recording(600)
    encoder = codec.stream_encoder(None, start="low_latency")
    parts = [encoder.push(wav[:, i : i + HOP]) for i in range(0, 600, HOP)]
    assert all(part.shape == (4, 1) for part in parts)
    codes = np.concatenate(parts, axis=1)
    decoder = codec.stream_decoder(start="low_latency")
    assert decoder.push(codes[:, :1]).shape == (2, HOP)
    exact = codec.encode(wav, None).codes[0]
    assert not np.array_equal(codes, exact)
    assert np.array_equal(codes[0, 50:], exact[0, 50:])
    # Zero padding is what a "constant" model does anyway: no difference at all.
    plain = codecs("constant")
    low = plain.stream_encoder(6.0, start="low_latency")
    found = np.concatenate([low.push(wav), low.flush()], axis=1)
    assert np.array_equal(found, plain.encode(wav, 6.0).codes[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threads", [1, 3])
def test_encode_many_equals_one_by_one(
    codecs: Callable[[str], ef.Codec], kind: str, threads: int
) -> None:
    codec = ef.Codec(codecs(kind).program, threads)
    wavs = [recording(n, n) for n in (1, 600, 6, 95, 1000, 41, 42, 43, 7, 180, 96, 99)]
    for wav, codes in zip(wavs, codec.encode_many(wavs, 12.0), strict=True):
        alone = codecs(kind).encode(wav, 12.0)
        assert alone.scales == codes.scales and alone.audio_length == codes.audio_length
        for a, b in zip(alone.codes, codes.codes, strict=True):
            assert np.array_equal(a, b)
    assert codec.encode_many([], 12.0) == []
    with pytest.raises(ValueError, match=r"wavs\[1\]: expected shape \[2, any\]"):
        codec.encode_many([wavs[0], wavs[0][0]])


def test_torch_in_torch_out(codecs: Callable[[str], ef.Codec]) -> None:
    torch = pytest.importorskip("torch")
    codec = codecs("reflect")
    wav = recording(100)
    codes = codec.encode(torch.from_numpy(wav))
    assert codes.codes[0].dtype == torch.int64
    plain = codec.encode(wav)
    assert np.array_equal(codes.codes[0].numpy(), plain.codes[0])
    out = codec.decode(codes)
    assert isinstance(out, torch.Tensor)
    assert np.array_equal(out.numpy(), codec.decode(plain))
    many = codec.encode_many([wav, torch.from_numpy(wav)])
    assert isinstance(many[0].codes[0], np.ndarray) and isinstance(many[1].codes[0], torch.Tensor)


def test_resampling(codecs: Callable[[str], ef.Codec]) -> None:
    codec = codecs("reflect")
    codes = codec.encode(recording(16000), 6.0, sample_rate=16000)
    assert codes.audio_length == 8000 and codes.sample_rate == 8000
    same = codec.encode(recording(100), 6.0, sample_rate=8000)
    assert np.array_equal(same.codes[0], codec.encode(recording(100), 6.0).codes[0])


BAD_AUDIO = [
    (np.zeros((1, 100), np.float32), r"wav: expected shape \[2, any\], found \[1, 100\]"),
    (np.zeros(100, np.float32), r"expected shape \[2, any\], found \[100\]"),
    (np.zeros((2, 100), np.int16), "expected floating-point samples, found int16"),
    (np.zeros((2, 0), np.float32), "expected at least one sample"),
    (np.full((2, 9), np.nan, np.float32), "expected finite samples"),
    (np.full((2, 9), 1e300), "expected finite samples"),
    ("noise", "expected floating-point samples"),
]


@pytest.mark.parametrize("case", range(len(BAD_AUDIO)))
@pytest.mark.parametrize("kind", KINDS)
def test_bad_audio(codecs: Callable[[str], ef.Codec], kind: str, case: int) -> None:
    wav, message = BAD_AUDIO[case]
    with pytest.raises(ValueError, match=message):
        codecs(kind).encode(wav)


@pytest.mark.parametrize("kind", KINDS)
def test_bad_codes(codecs: Callable[[str], ef.Codec], kind: str) -> None:
    codec = codecs(kind)
    good = codec.encode(recording(180), 6.0)
    array = good.codes[0]
    changes: list[tuple[dict[str, Any], str]] = [
        ({"model": "other"}, "expected model"),
        ({"codes": []}, "segment"),
        ({"codes": [array.astype(np.float32), *good.codes[1:]]}, "expected integer codes"),
        ({"codes": [array.astype(np.int64) - 1000, *good.codes[1:]]}, r"codes in 0\.\.31"),
        ({"codes": [array + 32, *good.codes[1:]]}, r"codes in 0\.\.31"),
        ({"codes": [array[0], *good.codes[1:]]}, "expected shape"),
        ({"codes": [np.tile(array, (3, 1)), *good.codes[1:]]}, "expected shape"),
        ({"codes": [array[:, :0], *good.codes[1:]]}, "expected shape"),
        ({"audio_length": 0}, "audio_length"),
        ({"audio_length": 10**9}, "audio_length"),
        ({"audio_length": 3.5}, "audio_length"),
        ({"sample_rate": 1}, "expected sample_rate 8000, found 1"),
    ]
    if kind == "segments":
        changes += [
            ({"scales": None}, "scales: expected one per segment"),
            ({"scales": [1.0, float("nan")]}, "expected a finite level"),
            ({"scales": [1.0, None]}, "expected a finite level"),
            ({"scales": [1e39, 1.0]}, "expected a finite level"),
            ({"codes": [np.tile(array, 2), good.codes[1]]}, "expected shape"),
            ({"codes": [good.codes[1], good.codes[0]]}, "a segment's length does not fit"),
        ]
    for change, message in changes:
        with pytest.raises(ValueError, match=message):
            codec.decode(dataclasses.replace(good, **change))


def test_streams_refuse(codecs: Callable[[str], ef.Codec]) -> None:
    with pytest.raises(ValueError, match="codes whole segments of 100 samples; use compress_file"):
        codecs("segments").stream_encoder(6.0)
    codec = codecs("reflect")
    for call in (
        lambda: codec.stream_encoder(6.0, batch=0),
        lambda: codec.stream_decoder(batch=-1),
        lambda: codec.stream_encoder(6.0, start="fast"),
        lambda: codec.stream_encoder(5.0),
        lambda: codec.stream_encoder(batch=1.5),  # type: ignore[arg-type]
        lambda: codec.encode(recording(10), [6.0]),  # type: ignore[arg-type]
        lambda: codec.stream_encoder(6.0, batch=2).push(recording(10)),
        lambda: codec.stream_decoder().push(np.zeros((5, 1), np.uint16)),
        lambda: codec.stream_decoder().push(np.zeros((0, 1), np.uint16)),
        lambda: codec.stream_decoder().push(np.full((1, 1), 99, np.uint16)),
        lambda: ef.Codec(codec.program, threads=0),
    ):
        with pytest.raises(ValueError, match=r"expected|supports"):
            call()
    decoder = codec.stream_decoder()
    decoder.push(np.zeros((2, 3), np.uint16))
    with pytest.raises(ValueError, match="codebooks, found 4"):
        decoder.push(np.zeros((4, 3), np.uint16))


def test_a_failed_push_ends_the_stream(codecs: Callable[[str], ef.Codec]) -> None:
    """What a failure in mid-push did to the state is unknown: no silent garbage afterwards."""
    encoder = codecs("reflect").stream_encoder(6.0)
    native, calls = encoder._native, []

    class Failing:
        def run(self, *arguments: Any) -> Any:
            calls.append(arguments)
            if len(calls) == 2:
                raise MemoryError
            return native.run(*arguments)

        def reset(self) -> None:
            native.reset()

    encoder._native = Failing()  # type: ignore[assignment]
    wav = recording(400)
    with pytest.raises(MemoryError):
        encoder.push(wav)
    with pytest.raises(ValueError, match=r"an earlier call failed \(call reset"):
        encoder.push(wav)
    encoder.reset()
    codes = np.concatenate([encoder.push(wav), encoder.flush()], axis=1)
    assert np.array_equal(codes, codecs("reflect").encode(wav, 6.0).codes[0])


def test_wrong_types(codecs: Callable[[str], ef.Codec]) -> None:
    codec: Any = codecs("reflect")
    module: Any = ef
    for call in (
        lambda: module.decompress("talk.ecdc"),
        lambda: codec.decompress(None),
        lambda: codec.decode(np.zeros((2, 5), np.uint16)),
        lambda: codec.encode(recording(10), sample_rate="x"),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()


def test_too_loud_for_a_level(codecs: Callable[[str], ef.Codec]) -> None:
    loud = recording(180) * np.float32(1e30)
    with pytest.raises(ValueError, match="too loud"):
        codecs("segments").encode(loud)
    assert codecs("reflect").encode(loud).codes[0].max() < 32


def test_codes_that_change_during_the_call(codecs: Callable[[str], ef.Codec]) -> None:
    """The range check and the look-up see the same values, whatever another thread does."""
    codec = codecs("reflect")
    codes = np.zeros((4, 3000), np.uint16)
    stop = threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            codes[3, :] = 65535
            codes[3, :] = 0

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(30):
            try:
                codec.stream_decoder().push(codes)
            except ValueError:
                continue
    finally:
        stop.set()
        thread.join()


def test_module_level_decompress(
    codecs: Callable[[str], ef.Codec], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tiny_program(tmp_path, "reflect", 2)
    data = codecs("reflect").compress(recording(100))
    monkeypatch.setenv("ENCODEC_FAST_MODELS", str(tmp_path / "none"))
    with pytest.raises(ef.ModelNotFoundError, match="models import"):
        ef.decompress(data)
    expected = codecs("reflect").decompress(data)
    for found, rate in (ef.decompress(data, model=path),):
        assert rate == 8000 and np.array_equal(found, expected)
    monkeypatch.setenv("ENCODEC_FAST_MODELS", str(tmp_path))
    assert np.array_equal(ef.decompress(data)[0], expected)
    with pytest.raises(ValueError, match="written by model tiny_reflect, not tiny_constant"):
        codecs("constant").decompress(data)


def test_cpu_info() -> None:
    info = ef.cpu_info()
    assert (
        info["supported"] == ("portable", "avx2", "avx512", "avx512vnni")[: len(info["supported"])]
    )
    assert info["isa"] == os.environ.get("ENCODEC_FAST_ISA", info["supported"][-1])
