"""The determinism contract, held as equality of bytes: codes and files are a pure function of
samples, model and settings, whatever the chunks, batches, threads, instruction set, and whatever
state another library left the floating-point unit in."""

from __future__ import annotations

import ctypes
import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from containers import version_0
from signals import FloatArray, program_material

torch = pytest.importorskip("torch")

# Behind the skip, because what follows imports torch and the peers.
from narrow import NAMES, narrow_model, narrow_program  # noqa: E402

import encodec_fast as ef  # noqa: E402
from encodec_fast.models.export import export_model  # noqa: E402
from encodec_fast.segments import Piece  # noqa: E402

SECONDS = 7.3


@pytest.fixture(scope="module", params=NAMES)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return narrow_program(request.param, tmp_path_factory.mktemp("narrow"))


@pytest.fixture(scope="module")
def codec(program: Path) -> ef.Codec:
    return ef.Codec.load(program)


@pytest.fixture(scope="module")
def wav(codec: ef.Codec) -> FloatArray:
    return program_material("test", codec.sample_rate, codec.channels, SECONDS)


def random_sizes(rng: np.random.Generator, total: int, largest: int) -> Iterator[int]:
    """Sizes from 0 to `largest`, small and large alike, that add up to `total`."""
    left = total
    while left:
        size = min(left, int(np.exp(rng.uniform(0, np.log(largest)))) - int(rng.random() < 0.05))
        yield size
        left -= size


def chunks(rng: np.random.Generator, array: np.ndarray, largest: int) -> Iterator[np.ndarray]:
    """Cut the last axis of `array` at random; the first thousand elements one by one."""
    singles = min(1000, array.shape[-1])
    position = 0
    for size in [1] * singles + list(random_sizes(rng, array.shape[-1] - singles, largest)):
        yield array[..., position : position + size]
        position += size


@pytest.mark.parametrize("seed", range(4))
def test_chunks_give_the_bytes_of_the_whole_file(
    codec: ef.Codec, wav: FloatArray, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    bandwidth = codec.bandwidths[seed % len(codec.bandwidths)]
    encoder = codec.block_encoder(codec.n_q(bandwidth))
    pieces: list[Piece] = []
    for chunk in chunks(rng, wav, 3 * codec.sample_rate):
        pieces += encoder.push(chunk)
    pieces += encoder.flush()
    n_q = codec.n_q(bandwidth)
    assert version_0(codec, wav.shape[1], n_q, pieces) == codec.compress(wav, bandwidth, version=0)
    buffer = io.BytesIO()
    writer = codec.piece_writer(n_q)(buffer)
    for piece in pieces:
        writer.write(piece)
    writer.finish(wav.shape[1])
    assert buffer.getvalue() == codec.compress(wav, bandwidth)


@pytest.mark.parametrize("seed", range(3))
def test_streams_equal_the_whole(codec: ef.Codec, wav: FloatArray, seed: int) -> None:
    if codec.segment_length is not None:
        pytest.skip("segmented models have no streams")
    rng = np.random.default_rng(seed)
    encoder = codec.stream_encoder(6.0)
    parts = [encoder.push(chunk) for chunk in chunks(rng, wav, 3 * codec.sample_rate)]
    codes = np.concatenate([*parts, encoder.flush()], axis=1)
    whole = codec.encode(wav, 6.0)
    assert np.array_equal(codes, whole.codes[0])
    decoder = codec.stream_decoder()
    sizes = random_sizes(rng, codes.shape[1], 3 * codec.sample_rate // codec.hop)
    cuts = np.cumsum(list(sizes))[:-1]
    audio = [decoder.push(frames) for frames in np.split(codes, cuts, axis=1)]
    joined = np.concatenate([*audio, decoder.flush()], axis=1)
    assert np.array_equal(joined[:, : wav.shape[1]], codec.decode(whole))


def test_a_batch_of_streams_equals_single_streams(codec: ef.Codec, wav: FloatArray) -> None:
    if codec.segment_length is not None:
        pytest.skip("segmented models have no streams")
    length = wav.shape[1] // 3
    batch = np.stack([wav[:, i * length : (i + 1) * length] for i in range(3)])
    encoder = codec.stream_encoder(6.0, batch=3)
    rng = np.random.default_rng(5)
    parts = [encoder.push(chunk) for chunk in chunks(rng, batch, codec.sample_rate)]
    codes = np.concatenate([*parts, encoder.flush()], axis=2)
    decoder = codec.stream_decoder(batch=3)
    audio = np.concatenate([decoder.push(codes), decoder.flush()], axis=2)
    for index, one in enumerate(batch):
        alone = codec.encode(one, 6.0)
        assert np.array_equal(codes[index], alone.codes[0])
        assert np.array_equal(audio[index, :, :length], codec.decode(alone))


def test_low_latency_streams_are_the_same_however_cut_and_batched(
    codec: ef.Codec, wav: FloatArray
) -> None:
    if not codec.causal:
        pytest.skip("only causal models have this start")
    rng = np.random.default_rng(6)
    wav = wav[:, : 2 * codec.sample_rate]
    single = codec.stream_encoder(6.0, start="low_latency")
    codes = np.concatenate([single.push(wav), single.flush()], axis=1)
    encoder = codec.stream_encoder(6.0, batch=3, start="low_latency")
    late = encoder.push([wav[:, :900]], [2])  # the others join a stream that is under way
    parts = [encoder.push([one, one], [0, 1]) for one in chunks(rng, wav, codec.sample_rate)]
    ends = encoder.push([wav[:, 900:]], [2]) + encoder.flush([2])
    assert np.array_equal(np.concatenate([late[0], *ends], axis=1), codes)
    rest = encoder.flush([0, 1])
    decoder, decoders = (codec.stream_decoder(batch=b, start="low_latency") for b in (None, 2))
    audio = np.concatenate([decoder.push(codes), decoder.flush()], axis=1)
    heard = [decoders.push(np.stack([one] * 2)) for one in np.split(codes, [1, 2, 9, 60], axis=1)]
    for lane in range(2):
        joined = np.concatenate([*(part[lane] for part in parts), rest[lane]], axis=1)
        assert np.array_equal(joined, codes)
        assert np.array_equal(np.concatenate([part[lane] for part in heard], axis=1), audio)


def test_first_output_of_each_start(codec: ef.Codec, wav: FloatArray) -> None:
    """docs/determinism.md gives these figures."""
    if not codec.causal:
        pytest.skip("only causal models have this start")
    mirrored = codec.name == "encodec_24khz"
    codes = codec.encode(wav[:, :6400], 6.0).codes[0]
    for start, samples in (("exact", 2240 if mirrored else 320), ("low_latency", 320)):
        encoder, decoder = codec.stream_encoder(6.0, start=start), codec.stream_decoder(start=start)
        frames = samples // 320
        assert encoder.push(wav[:, : samples - 1]).shape[1] == 0
        assert encoder.push(wav[:, samples - 1 : samples]).shape[1] == frames
        assert decoder.push(codes[:, : frames - 1]).shape[1] == 0
        assert decoder.push(codes[:, frames - 1 : frames]).shape[1] == samples


def test_encode_many_equals_one_by_one(codec: ef.Codec, wav: FloatArray) -> None:
    lengths = (1, 319, 320, 24001, 5000, 100001, 48000, 641, 2240, 2241)
    wavs = [wav[:, 7 * i : 7 * i + n] for i, n in enumerate(lengths)]
    for one, codes in zip(wavs, codec.encode_many(wavs, 6.0), strict=True):
        assert same_codes(codes, codec.encode(one, 6.0))


def same_codes(a: ef.Codes, b: ef.Codes) -> bool:
    equal = [np.array_equal(x, y) for x, y in zip(a.codes, b.codes, strict=True)]
    return all(equal) and a.scales == b.scales and a.audio_length == b.audio_length


def test_repeats_and_other_instances_agree(codec: ef.Codec, program: Path, wav: FloatArray) -> None:
    data = codec.compress(wav, 6.0)
    codec.compress(wav[:, ::-1], 12.0)
    assert codec.compress(wav, 6.0) == data
    assert ef.Codec.load(program).compress(wav, 6.0) == data


def test_one_codec_serves_many_threads(codec: ef.Codec, wav: FloatArray) -> None:
    wavs = [np.ascontiguousarray(wav[:, i * 4000 : 60000 + i * 9000]) for i in range(8)]
    alone = [codec.compress(one, 6.0) for one in wavs]
    heard = [codec.decompress(data).tobytes() for data in alone]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda one: codec.compress(one, 6.0), wavs)) == alone
        together = pool.map(codec.decompress, alone)
        assert [audio.tobytes() for audio in together] == heard


@pytest.mark.parametrize("threads", [2, 4])
def test_number_of_threads(codec: ef.Codec, program: Path, wav: FloatArray, threads: int) -> None:
    threaded = ef.Codec.load(program, threads=threads)
    data = codec.compress(wav, 12.0)
    assert threaded.compress(wav, 12.0) == data
    assert np.array_equal(threaded.decompress(data), codec.decompress(data))
    parts = np.array_split(wav, 5, axis=1)
    for one, codes in zip(parts, threaded.encode_many(parts, 12.0), strict=True):
        assert same_codes(codes, codec.encode(one, 12.0))


HASH_PROGRAM = """
import hashlib, sys
import numpy as np
import encodec_fast as ef
wav = np.load(sys.argv[1])
print(ef.cpu_info()["isa"])
for path in sys.argv[2:]:
    codec = ef.Codec.load(path)
    data = codec.compress(wav, codec.bandwidths[-1])
    print(hashlib.sha256(data + codec.decompress(data).tobytes()).hexdigest())
"""


def run_python(program: str, *arguments: object, isa: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=Path(sys.prefix),  # in a checkout, its sources without the native core would come first
        env={**os.environ, "ENCODEC_FAST_ISA": isa},
        capture_output=True,
        text=True,
        check=False,
    )


def test_instruction_sets_agree(codec: ef.Codec, wav: FloatArray, tmp_path: Path) -> None:
    """Not a second of audio: the portable level calls fmaf for every product."""
    short = np.ascontiguousarray(wav[:, : int(0.7 * codec.sample_rate) + 13])
    np.save(tmp_path / "wav.npy", short)
    model = narrow_model(codec.name)
    paths = [tmp_path / dtype for dtype in ("float32", "bfloat16")]
    here = []
    for path in paths:
        export_model(model, path, dtype=path.name)
        one = ef.Codec.load(path)
        data = one.compress(short, one.bandwidths[-1])
        here.append(hashlib.sha256(data + one.decompress(data).tobytes()).hexdigest())
    assert here[0] != here[1]
    for isa in ef.cpu_info()["supported"]:
        result = run_python(HASH_PROGRAM, tmp_path / "wav.npy", *paths, isa=isa)
        assert result.stdout.split() == [isa, *here], result.stderr


def test_an_unknown_instruction_set_is_refused() -> None:
    result = run_python("import encodec_fast; encodec_fast.cpu_info()", isa="sse9")
    assert result.returncode != 0
    assert "ValueError" in result.stderr and "sse9" in result.stderr


@contextmanager
def denormals_flushed() -> Iterator[None]:
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU cannot flush denormals")
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def rounding_up() -> Iterator[None]:
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        pytest.skip("the rounding mode's number is known for x86-64 Linux only")
    libm = ctypes.CDLL("libm.so.6")
    assert libm.fesetround(0x800) == 0
    try:
        yield
        assert libm.fegetround() == 0x800, "the caller's rounding mode was not restored"
    finally:
        libm.fesetround(0)


@pytest.mark.parametrize("state", [denormals_flushed, rounding_up])
def test_floating_point_state_of_the_caller(
    codec: ef.Codec, wav: FloatArray, state: Callable[[], Iterator[None]]
) -> None:
    """Fading into denormals, so that flushing them would show."""
    fading = wav[:, :60000] * np.logspace(0, -44, 60000, dtype=np.float64)
    samples = fading.astype(np.float32)
    assert 0 < np.abs(samples[samples != 0]).min() < np.finfo(np.float32).tiny
    codes = codec.encode(samples, 6.0)
    data = codec.compress(samples, 6.0)
    audio = codec.decode(codes)
    with state():
        found = codec.encode(samples, 6.0)
        found_data = codec.compress(samples, 6.0)
        found_audio = codec.decode(codes)
    assert same_codes(found, codes)
    assert found_data == data
    if codec.segment_length is None or state is denormals_flushed:
        # Segments are joined by numpy, which rounds as the caller says.
        assert np.array_equal(found_audio, audio)
