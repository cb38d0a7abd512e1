"""Live pipes: raw PCM in chunks to version 1 and back, in this process and through real pipes."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from programs import HOP
from version_1 import RATE, container_size, recording

import encodec_fast as ef
from encodec_fast import pipes
from encodec_fast.audio import convert_audio


@pytest.fixture
def folder(tiny_entropies: Path) -> Path:
    return tiny_entropies


@pytest.fixture(params=["reflect", "constant", "segments"])
def codec(request: pytest.FixtureRequest, folder: Path) -> ef.Codec:
    return ef.Codec.load(folder / f"tiny_{request.param}.safetensors")


class Trickle(io.RawIOBase):
    """A source that gives a few bytes at a time, and cannot seek."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data = io.BytesIO(data)
        self._size = size

    def read(self, size: int = -1) -> bytes:
        return self._data.read(self._size if size < 0 else min(size, self._size))


def encoded(codec: ef.Codec, source: bytes | IO[bytes], **options: Any) -> bytes:
    target = io.BytesIO()
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    pipes.encode_pipe(codec, stream, target, **options)
    return target.getvalue()


def decoded(codec: ef.Codec, folder: Path, data: bytes, **options: Any) -> np.ndarray:
    target = io.BytesIO()
    path = folder / f"{codec.name}.safetensors"
    pipes.decode_pipe(io.BytesIO(data), target, model=path, sample_format="f32le", **options)
    return np.frombuffer(target.getvalue(), "<f4").reshape(-1, codec.channels).T


@pytest.mark.parametrize("entropy", ["none", "static", "lm"])
@pytest.mark.parametrize("chunk", [HOP / RATE, 0.02, 1.0])
def test_a_pipe_gives_the_codes_of_the_file(
    codec: ef.Codec, folder: Path, entropy: str, chunk: float
) -> None:
    wav = recording(3001)
    data = encoded(codec, wav.T.tobytes(), sample_format="f32le", entropy=entropy, chunk=chunk)
    expected = codec.decode(codec.encode(wav))
    assert np.array_equal(codec.decompress(data, strict=True), expected)
    live = decoded(codec, folder, data)
    assert 3001 <= live.shape[1] < 3001 + HOP
    assert np.array_equal(live[:, :3001], expected)
    trickle: Any = Trickle(wav.T.tobytes(), 7)
    options = {"sample_format": "f32le", "entropy": entropy, "chunk": chunk}
    assert encoded(codec, trickle, **options) == data


def test_low_latency(folder: Path) -> None:
    codec = ef.Codec.load(folder / "tiny_reflect.safetensors")
    wav = recording(1200)
    data = encoded(codec, wav.T.tobytes(), sample_format="f32le", start="low_latency")
    encoder = codec.stream_encoder(start="low_latency")
    decoder = codec.stream_decoder(start="low_latency")
    codes = np.concatenate([encoder.push(wav), encoder.flush()], axis=1)
    expected = np.concatenate([decoder.push(codes), decoder.flush()], axis=1)
    assert np.array_equal(codec.decompress(data), expected)
    assert np.array_equal(decoded(codec, folder, data), expected)


def test_rates_channels_and_16_bits(folder: Path) -> None:
    codec = ef.Codec.load(folder / "tiny_constant.safetensors")
    rng = np.random.default_rng(0)
    pcm = rng.integers(-9000, 9000, (5000, 2)).astype("<i2")
    data = encoded(codec, pcm.tobytes() + b"\x01", sample_rate=11025, channels=2)
    wav = convert_audio((pcm.T / np.float32(32768)).astype(np.float32), 11025, RATE, 1)
    assert data == encoded(codec, wav.T.tobytes(), sample_format="f32le")
    target = io.BytesIO()
    path = folder / "tiny_constant.safetensors"
    pipes.decode_pipe(io.BytesIO(data), target, model=path)
    found = np.frombuffer(target.getvalue(), "<i2")
    audio = decoded(codec, folder, data)[0]
    assert np.array_equal(found, np.rint(np.clip(audio, -0.99, 0.99) * 32768))


def test_nothing_and_one_sample(codec: ef.Codec, folder: Path) -> None:
    assert decoded(codec, folder, encoded(codec, b"")).shape == (1, 0)
    assert codec.decompress(encoded(codec, b"")).shape == (1, 0)
    one = encoded(codec, np.ones(1, "<f4").tobytes(), sample_format="f32le")
    assert codec.decompress(one).shape == (1, 1)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_ends_the_file(codec: ef.Codec, interrupt: type[BaseException]) -> None:
    wav = recording(1234)

    class Interrupted(io.BytesIO):
        def read1(self, size: int | None = -1) -> bytes:
            data = super().read1(size or -1)
            if not data:
                raise interrupt
            return data

    target = io.BytesIO()
    with pytest.raises(interrupt):
        source = Interrupted(wav.T.tobytes())
        pipes.encode_pipe(codec, source, target, sample_format="f32le", chunk=0.02)
    expected = codec.decode(codec.encode(wav))
    assert np.array_equal(codec.decompress(target.getvalue(), strict=True), expected)


def test_damage_in_a_pipe(codec: ef.Codec, folder: Path) -> None:
    wav = recording(3000)
    data = bytearray(encoded(codec, wav.T.tobytes(), sample_format="f32le", chunk=0.02))
    whole = decoded(codec, folder, bytes(data))
    data[len(data) // 2] ^= 1
    with pytest.warns(ef.DamageWarning, match="stream: damaged, lost"):
        found = decoded(codec, folder, bytes(data))
    assert found.shape[1] >= 3000 and not np.array_equal(found, whole)
    with pytest.raises(ValueError, match="damaged"):
        decoded(codec, folder, bytes(data), strict=True)
    size = container_size(bytes(data))
    with pytest.warns(ef.DamageWarning, match="to the end"):
        decoded(codec, folder, bytes(data[: size + 100]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sample_format": "s24le"}, "format: expected s16le or f32le"),
        ({"channels": 0}, "channels"),
        ({"channels": 1.0}, "channels"),
        ({"sample_rate": 10}, "sample rate 10 Hz"),
        ({"bandwidth": 7.0}, "bandwidth"),
        ({"chunk": 0}, "chunk"),
        ({"chunk": float("nan")}, "chunk"),
        ({"chunk": 1e5}, "frames per chunk"),
        ({"entropy": "zip"}, "entropy"),
        ({"start": "now"}, "start"),
    ],
)
def test_bad_arguments(folder: Path, options: dict[str, Any], words: str) -> None:
    codec = ef.Codec.load(folder / "tiny_reflect.safetensors")
    with pytest.raises(ValueError, match=words):
        encoded(codec, b"\0" * 100, **options)


def test_samples_that_are_not_finite(folder: Path) -> None:
    codec = ef.Codec.load(folder / "tiny_reflect.safetensors")
    with pytest.raises(ValueError, match="sample 3 of channel 0 is nan"):
        data = np.array([0, 0, 0, np.nan], "<f4").tobytes()
        encoded(codec, data, sample_format="f32le")


def test_each_chunk_leaves_at_once(folder: Path) -> None:
    """Through the command line and real pipes: a chunk in, its samples out, before the next one."""
    command = [sys.executable, "-m", "encodec_fast.cli", "stream"]
    path = str(folder / "tiny_constant.safetensors")
    encode = [*command, "encode", "-m", path, "--chunk-ms", "15", "--entropy", "lm"]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(encode, stdin=pipe, stdout=pipe, bufsize=0) as encoder,
        subprocess.Popen(
            [*command, "decode", "-m", path], stdin=encoder.stdout, stdout=pipe, bufsize=0
        ) as decoder,
    ):
        assert encoder.stdin and encoder.stdout and decoder.stdout
        encoder.stdout.close()
        total = 0
        for _ in range(20):
            encoder.stdin.write(bytes(2 * 120))  # 15 ms
            received = b""
            while len(received) < 2 * 120:
                received += decoder.stdout.read(2 * 120 - len(received))
            total += len(received)
        encoder.stdin.close()
        assert decoder.stdout.read() == b"" and total == 20 * 240
    assert encoder.returncode == decoder.returncode == 0
