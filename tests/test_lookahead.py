"""Models that look ahead: padded on both sides, without norm; whole recordings in blocks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from programs import HOP, describe, tiny_program, write_program

import encodec_fast as ef
from encodec_fast import _native, files
from encodec_fast.program import Program


@pytest.fixture(params=["ahead", "ahead_constant"])
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tiny_program(tmp_path, request.param, 2)


@pytest.fixture
def codec(program: Path) -> ef.Codec:
    return ef.Codec.load(program)


def recording(length: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((2, length))
    return (0.2 * noise).astype(np.float32)


def test_what_it_says_of_itself(codec: ef.Codec) -> None:
    assert not codec.causal and codec.segment_length is None
    graph = codec.program.encoder
    assert graph.streams and not graph.causal and graph.delay > 0
    with pytest.raises(ValueError, match=r"start: .* not causal.* expected 'exact'"):
        codec.stream_encoder(start="low_latency")
    with pytest.raises(ValueError, match=r"start: .* not causal.* expected 'exact'"):
        codec.stream_decoder(start="low_latency")
    with pytest.raises(ValueError, match="no low-latency start"):
        _native.Encoder(graph, codec.program.codebooks, 1, True)


def test_streams_are_late_by_their_delay(codec: ef.Codec) -> None:
    wav = recording(60 * HOP)
    encoder, decoder = codec.stream_encoder(6.0), codec.stream_decoder()
    assert encoder.delay > 0 and encoder.delay % HOP == 0 and decoder.delay > 0
    graphs = codec.program.encoder, codec.program.decoder
    frames = samples = 0
    for i in range(60):
        codes = encoder.push(wav[:, i * HOP : (i + 1) * HOP])
        frames += codes.shape[1]
        starts = (i + 1) * HOP >= graphs[0].start_rows
        assert frames == (i + 1 - encoder.delay // HOP if starts else 0)
        samples += decoder.push(codes).shape[1]
        starts = frames >= graphs[1].start_rows
        assert samples == (frames * HOP - decoder.delay if starts else 0)
    assert samples > 0
    assert encoder.flush().shape[1] == encoder.delay // HOP
    assert decoder.flush().shape[1] == frames * HOP - samples


@pytest.mark.parametrize("length", [1, 5, 6, 7, 23, 24, 25, 41, 42, 60, 61, 400])
def test_a_frame_needs_no_more_than_the_delay(codec: ef.Codec, length: int) -> None:
    """What comes later leaves no trace in it; a stream that ends says the same as the whole."""
    wav = recording(length)
    whole = codec.encode(wav, 12.0).codes[0]
    assert whole.shape[1] == -(-length // HOP)
    longer = np.concatenate([wav, recording(300, 1)], axis=1)
    certain = length // HOP - codec.stream_encoder().delay // HOP
    if certain > 0:
        same = codec.encode(longer, 12.0).codes[0][:, :certain]
        assert np.array_equal(same, whole[:, :certain])


def test_an_empty_last_block_and_the_life_after_it(codec: ef.Codec) -> None:
    """Of the native object, beside a lane that rests and one that ends in the same call."""
    graph, books = codec.program.encoder, codec.program.codebooks
    native = _native.Encoder(graph, books, 3, False)
    wav = recording(20 * HOP)
    whole = native.run([wav, wav[:, :0], wav[:, :5]], [True, False, True], [1.0] * 3, 4)
    nothing = wav[:, :0]
    for _ in range(2):
        first = native.run([wav, nothing, wav], [False] * 3, [1.0] * 3, 4)
        rest = native.run([nothing] * 3, [True, True, False], [1.0] * 3, 4)
        assert np.array_equal(np.concatenate([first[0], rest[0]], axis=1), whole[0])
        assert rest[1].shape[1] == 0 and rest[2].shape[1] == 0
        tail = native.run([nothing, wav[:, :5], nothing], [False, True, True], [1.0] * 3, 4)
        assert np.array_equal(np.concatenate([first[2], tail[2]], axis=1), whole[0])
        assert np.array_equal(tail[1], whole[2])
    native.run([wav, nothing, nothing], [False] * 3, [1.0] * 3, 4)
    native.reset(0)
    assert native.run([nothing] * 3, [True] * 3, [1.0] * 3, 4)[0].shape[1] == 0
    assert np.array_equal(native.run([wav] * 3, [True] * 3, [1.0] * 3, 4)[0], whole[0])


@pytest.mark.parametrize("length", [1, 5, 600, 6001])
@pytest.mark.parametrize("threads", [1, 3])
def test_files(tmp_path: Path, program: Path, length: int, threads: int) -> None:
    codec = ef.Codec.load(program, threads=threads)
    wav = recording(length)
    soundfile.write(tmp_path / "a.wav", wav.T, codec.sample_rate, subtype="FLOAT")
    codec.compress_file(tmp_path / "a.wav", tmp_path / "a.ecdc")
    data = codec.compress(wav)
    assert (tmp_path / "a.ecdc").read_bytes() == data
    heard = codec.decompress(data)
    assert heard.shape == wav.shape
    assert np.array_equal(heard, codec.decode(codec.encode(wav)))
    files.decompress_file(
        tmp_path / "a.ecdc", tmp_path / "b.wav", model=program, encoding="float32"
    )
    assert np.array_equal(soundfile.read(tmp_path / "b.wav", dtype="float32")[0].T, heard)
    files.decompress_file(
        tmp_path / "a.ecdc",
        tmp_path / "c.wav",
        model=program,
        encoding="float32",
        start=length / 2 / codec.sample_rate,
        duration=0.05,
        exact=True,
    )
    part = soundfile.read(tmp_path / "c.wav", dtype="float32", always_2d=True)[0].T
    assert np.array_equal(part, heard[:, round(length / 2) :][:, :400])
    version_0 = codec.compress(wav, version=0)
    assert np.array_equal(codec.decompress(version_0), heard)


def test_segments_of_a_model_that_looks_ahead(tmp_path: Path) -> None:
    """Allowed, too: they run as wholes do."""
    header, tensors = describe("ahead", 2)
    whole = ef.Codec(Program.load(write_program(tmp_path / "whole", header, tensors)))
    header |= {"segment_length": 100, "segment_stride": 90}
    cut = ef.Codec(Program.load(write_program(tmp_path / "cut", header, tensors)))
    wav = recording(250)
    codes = cut.encode(wav, 12.0).codes
    assert [c.shape[1] for c in codes] == [17, 17, 12]
    assert np.array_equal(codes[1], whole.encode(wav[:, 90:190], 12.0).codes[0])
    with pytest.raises(ValueError, match="codes whole segments"):
        cut.stream_encoder()


PEAK_PROGRAM = """
import resource, sys
import numpy as np
import encodec_fast as ef
codec = ef.Codec.load(sys.argv[1])
chunk = np.random.default_rng(0).standard_normal((2, 8000)).astype(np.float32)
encoder, decoder, peaks = codec.block_encoder(2), codec.block_decoder(), []
for second in range(400):
    for piece in encoder.push(chunk):
        decoder.push(piece)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(peaks[20], peaks[-1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss in kilobytes")
def test_memory_does_not_grow(program: Path) -> None:
    """400 seconds make 26 MB of samples each way, and many times that between the operations."""
    command = [sys.executable, "-c", PEAK_PROGRAM, str(program)]
    done = subprocess.run(command, cwd=sys.prefix, capture_output=True, text=True, check=True)
    early, late = map(int, done.stdout.split())
    assert late - early < 2000
